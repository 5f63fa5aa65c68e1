"""Measure what ONNX Runtime's fused kernels for compressed weights cost against the float product.

    python -m benchmarks.capabilities            print the table
    python -m benchmarks.capabilities --write    and make it what the compiler chooses forms by (ir/onnxruntime.json)

One layer of 1024 x 1024, one thread, activations of 1, 16 and 128 rows; a ratio above 1 is slower than float32.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.timing import machine, medians, session
from qcc.ir.blocks import group
from qcc.ir.encoding import Encoding, IntGrid
from qcc.ir.fit import encode
from qcc.ir.forms import Form, capabilities
from qcc.ir.onnx_graph import OnnxGraph
from qcc.ir.onnx_runtime import onnxruntime

TABLE = Path(__file__).parent.parent / "ir" / "onnxruntime.json"
SIZE, GROUP, ROWS = 1024, 32, (1, 16, 128)
REPEATS = 31


def layer(matrix: np.ndarray) -> ir.Model:
    """A model of one linear layer with this weight ``[in, out]``."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["rows", SIZE]))
    w = ir.Value(
        name="w",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(matrix.shape),
        const_value=ir.Tensor(matrix, name="w"),
    )
    node = ir.Node("", "MatMul", [x, w], name="layer")
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["rows", SIZE])
    graph = ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports={"": 20}, name="layer")
    return ir.Model(graph, ir_version=9)


def ratios(bits: int, symmetric: bool, matrix: np.ndarray) -> dict[int, float]:
    """Time of the fused form over time of float32, by rows of the activation."""
    graph = OnnxGraph(layer(matrix), Path())
    (weight,) = graph.weights()
    encoding = Encoding(IntGrid(bits, symmetric), group(GROUP))
    graph.encode(weight, encode(graph.matrix(weight), encoding), Form.FUSED)
    sessions = {
        "fused": session(ir.serde.serialize_model(graph.model).SerializeToString(), threads=1),
        "float": session(ir.serde.serialize_model(layer(matrix)).SerializeToString(), threads=1),
    }
    found = {}
    for rows in ROWS:
        x = np.random.default_rng(rows).standard_normal((rows, SIZE)).astype(np.float32)
        times = medians(sessions, {"x": x}, REPEATS)
        found[rows] = round(times["fused"] / times["float"], 2)
    return found


def main() -> None:
    """Measure every row of the table again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    print(f"# {machine()}\n# python -m benchmarks.capabilities")
    matrix = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)
    rows = []
    for known in capabilities():
        found = ratios(known.bits, known.symmetric, matrix)
        print(f"int{known.bits} {'sym ' if known.symmetric else 'asym'} group {GROUP}: ", end="")
        print("  ".join(f"{number} rows {ratio:.2f}x" for number, ratio in found.items()))
        rows.append(
            {
                "bits": known.bits,
                "symmetric": known.symmetric,
                "groups": list(known.groups),
                "opset": known.opset,
                "ratio": {str(number): ratio for number, ratio in found.items()},
            }
        )
    if write:
        body = ",\n".join(f"    {json.dumps(row)}" for row in rows)
        runtime = json.dumps(f"onnxruntime {onnxruntime.__version__}")
        TABLE.write_text(f'{{\n  "runtime": {runtime},\n  "fused": [\n{body}\n  ]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
