"""Measure what ONNX Runtime's fused kernels for compressed weights, and ours, cost against the float product.

    python -m benchmarks.capabilities                    print the table of this machine's instruction set
    python -m benchmarks.capabilities --write            and make it what the compiler chooses forms by
    python -m benchmarks.capabilities --write fused      only the runtime's own, or only `kernel`

``--write`` replaces those rows in ``codegen/cpu/capabilities.json``, and leaves the other instruction sets alone. One
layer of 1024 x 1024, one thread, activations of 1, 16 and 128 rows, runs taken in turn; medians of the thread's own
time over the float product's. A ratio above 1 is slower than float32.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.processes.timing import machine
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.library.spec import served
from qcc.codegen.cpu.processors.processors import instruction_set, named
from qcc.codegen.target import machine as hardware
from qcc.codegen.target.machine import cpu_flags
from qcc.codegen.target.target import NATIVE, Arithmetic
from qcc.compiler.measure.timing import Turns, interleaved
from qcc.ir.encoding.blocked import FLOAT_ENCODINGS, Blocked
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.grid import Grid, IntGrid, TableGrid, grid_of
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.fusible import fusible
from qcc.ir.forms.kernel import KERNEL, MEASURED_GROUP, kernel_op
from qcc.ir.graph.costs import Way
from qcc.ir.graph.form import Form
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.runtime import onnxruntime

TABLE = Path(__file__).parent.parent / "codegen" / "cpu" / "capabilities.json"
SIZE, ROWS = 1024, (1, 16, 128)
LEVELS = ("level 4", "level 0")
TABLE_NAMES = ("int1", "fp4", "nf4")
ACTIVATIONS: tuple[Arithmetic, ...] = ("bf16", "int8", "exact")
TURNS = Turns(rounds=31, own=True)
Sessions = dict[Way | None, onnxruntime.InferenceSession]


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


def session(model: ir.Model, level: str = "", library: Path | None = None) -> onnxruntime.InferenceSession:
    """One thread; at an accuracy level, or with a library."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if level:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level.removeprefix("level "))
    if library is not None:
        options.register_custom_ops_library(str(library))
    proto = ir.serde.serialize_model(model).SerializeToString()
    return onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])


def encoded(matrix: np.ndarray, encoding: Blocked, form: Form) -> ir.Model:
    """The layer in a form."""
    graph = OnnxGraph(layer(matrix), Path())
    (weight,) = graph.weights()
    graph.encode(weight, encode(graph.matrix(weight), encoding), form)
    return graph.model


def fused(matrix: np.ndarray) -> Iterator[Sessions]:
    """The runtime's own kernels, a format at a time."""
    for one in fusible():
        for size in one.groups:
            text, _, word = one.codes.partition(" ")
            grid = grid_of(text, word != "asym")
            assert grid is not None
            model = encoded(matrix, Blocked(grid, group(size)), FUSED)
            yield {Way("fused", one.codes, size, level): session(model, level) for level in LEVELS}


def kernels(matrix: np.ndarray, folder: Path) -> Iterator[Sessions]:
    """Ours for this machine, at one way to round activations at a time."""
    grids: list[Grid] = [*(IntGrid(bits) for bits in range(2, 9)), *map(TableGrid, TABLE_NAMES)]
    formats = [Blocked(grid, block) for grid in grids for block in (CHANNEL, group(MEASURED_GROUP))]
    formats.append(FLOAT_ENCODINGS["bf16"])
    models = {one: encoded(matrix, one, KERNEL) for one in formats}
    ops = {one: kernel_op(one, matrix.shape[::-1]) for one in formats}
    for activations in ACTIVATIONS:
        made = [one for one in formats if served([ops[one]], named(NATIVE), activations)]
        library = build([ops[one] for one in made], (named(NATIVE),), folder / f"{activations}.so", activations)
        yield {
            Way("kernel", one.kind, max(one.block.columns, 0), activations): session(models[one], library=library)
            for one in made
        }


def measure(sessions: Sessions, rows: int) -> dict[Way, float]:
    """Time over the float product's, which is among them under None."""
    x = np.random.default_rng(rows).standard_normal((rows, SIZE)).astype(np.float32)
    seconds = interleaved([partial(one.run, None, {"x": x}) for one in sessions.values()], TURNS)
    found = dict(zip(sessions, map(float, np.median(seconds, axis=1)), strict=True))
    return {way: round(one / found[None], 2) for way, one in found.items() if way is not None}


def lines(sessions: Sessions) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    found = {rows: measure(sessions, rows) for rows in ROWS}
    for way in filter(None, sessions):
        yield {**asdict(way), "ratio": {str(rows): ratios[way] for rows, ratios in found.items()}}


def write(instructions: str, rows: list[dict[str, Any]]) -> None:
    """Put the rows in place of what the table has of their forms for this instruction set."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    forms = {row["form"] for row in rows}
    kept = [row for row in table.get(instructions, {"rows": []})["rows"] if row["form"] not in forms]
    table[instructions] = {
        "processor": hardware.machine().processor,
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "date": str(date.today()),
        "rows": sorted(kept + rows, key=lambda row: [str(row[key]) for key in ("form", "codes", "group")]),
    }
    TABLE.write_text(_text(table), encoding="utf-8")


def _text(table: Mapping[str, Any]) -> str:
    """JSON with a row a line."""
    sets = []
    for name, one in sorted(table.items()):
        facts = "".join(f"    {json.dumps(key)}: {json.dumps(one[key])},\n" for key in one if key != "rows")
        sets.append(f'  {json.dumps(name)}: {{\n{facts}    "rows": [\n{_block(one["rows"], 6)}\n    ]\n  }}')
    return "{\n" + ",\n".join(sets) + "\n}\n"


def _block(rows: list[dict[str, Any]], indent: int) -> str:
    return ",\n".join(" " * indent + json.dumps(row) for row in rows)


def main() -> None:
    """Measure every row of this machine's table again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("forms", nargs="*", help="fused, kernel", default=["fused", "kernel"])
    asked = parser.parse_args()
    instructions = instruction_set(cpu_flags())
    print(f"# {machine()}\n# python -m benchmarks.capabilities\n# {instructions}", flush=True)
    matrix = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        parts = {"fused": fused(matrix), "kernel": kernels(matrix, Path(folder))}
        for sessions in (one for form in asked.forms for one in parts[form]):
            for row in lines({None: session(layer(matrix)), **sessions}):
                print(json.dumps(row), flush=True)
                rows.append(row)
    if asked.write:
        write(instructions, rows)


if __name__ == "__main__":
    main()
