"""Measure kernels against ONNX Runtime's best form of the same layer.

    python -m benchmarks.kernels             print the table
    python -m benchmarks.kernels int4 bf16   and only the parts that are named

One layer, one thread, sessions taken in turn in one process, inputs and outputs bound; medians of the thread's own
time. In a turn a layer runs for 2 ms, so that weights which fit a cache lie in it; the last column is of turns of one
run, in which they have been evicted. A ratio above 1 is faster than ONNX Runtime. Its forms: for codes blocked
``DequantizeLinear`` and ``MatMul``, which it fuses, at accuracy level 4 (activations rounded to int8) and 1
(float32), the faster counts, and only level 1 against exact activations; for bfloat16 weights ``MatMul`` in float32;
for int8 ``DynamicQuantizeMatMul``, and static QDQ with a result in int8 or, where ``to float`` stands, in float32. For
tables our own kernel of int4 stands in its place.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.processes.arrays import aligned
from benchmarks.processes.timing import machine
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import native
from qcc.codegen.target.target import Arithmetic
from qcc.compiler.measure.timing import Turns, interleaved
from qcc.ir.kernel.op import BF16, LinearOp, parse
from qcc.ir.onnx.file.runtime import onnxruntime

SHAPES = ((1024, 1024), (576, 1536), (4096, 4096))  # inputs, outputs
GROUP = 32
FIXED = (("step", 0.03, np.float32), ("middle", 128, np.uint8), ("y_step", 10, np.float32))  # of static QDQ
WARM = Turns(rounds=25, turn_s=0.002, warm=True, own=True)
COLD = Turns(rounds=25, own=True)
Times = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One line of the table: our op on so many rows of activations, and what it is held against."""

    part: str
    op: LinearOp
    rows: int
    rivals: tuple[str, ...]
    activations: Arithmetic = "int8"


INT4 = parse(f"linear_int4_group{GROUP}")
TABLE = [
    *(Row("int4", INT4, rows, ("level 4", "level 1")) for rows in (1, 4, 8, 16, 32, 128)),
    Row("exact", INT4, 1, ("level 1",), "exact"),
    Row("few", parse(f"linear_int2_group{GROUP}"), 1, ("2 bits, level 4",)),
    Row("few", parse(f"linear_int3_group{GROUP}"), 1, ("level 4",)),
    *(Row("tables", parse(f"linear_{name}"), 1, (INT4.name,)) for name in ("fp4_group32_e8m0", "nf4_group64")),
    *(Row("bf16", LinearOp(BF16), rows, ("float32",)) for rows in (1, 4, 16, 128)),
    *(Row("int8", parse("linear_int8_channel"), rows, ("dynamic", "static")) for rows in (1, 16, 128)),
    *(
        Row("prefill", parse(f"linear_{name}"), rows, rivals)
        for name, rivals in (("bf16", ("float32",)), ("int4_group32", ("level 4",)), ("int8_channel", ("dynamic",)))
        for rows in (256, 512)
    ),
    *(Row("static", parse("linear_int8_channel_static"), rows, ("static", "static to float")) for rows in (1, 16, 128)),
]


def weights(op: LinearOp, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    """Random ones, as the op stores them."""
    draw = np.random.default_rng(0)
    if op.is_float:
        return {"weight": (draw.standard_normal((outputs, inputs), np.float32).view(np.uint32) >> 16).astype(np.uint16)}
    parts: dict[str, np.ndarray] = {}
    for name, part in op.encoding.parts((outputs, inputs)).items():
        whole = name == "codes"  # scales that are bytes are powers of two
        low, high = (0, 1 << part.bits) if whole else (118, 124)
        codes = draw.integers(low, high, part.shape).astype(np.uint8)
        parts[name] = codes if part.dtype is np.uint8 else draw.uniform(0.01, 0.02, part.shape).astype(part.dtype)
    return op.arrays(parts) | ({"input_scale": np.array(0.03, np.float32)} if op.static else {})


def model(nodes: list[NodeProto], constants: list[TensorProto]) -> bytes:
    """A model ``x -> y`` of float32."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph(nodes, "layer", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", 25), ("qcc", 1), ("com.microsoft", 1))]
    made: ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=12)
    return bytes(made.SerializeToString())


def ours(op: LinearOp, inputs: int, outputs: int) -> bytes:
    """Our op."""
    constants = [numpy_helper.from_array(array, name) for name, array in weights(op, inputs, outputs).items()]
    if op.is_float:
        constants[0].data_type = TensorProto.BFLOAT16
    return model([helper.make_node(op.name, op.inputs, ["y"], domain="qcc")], constants)


def rival(name: str, inputs: int, outputs: int) -> bytes:
    """ONNX Runtime's form of the layer."""
    draw = np.random.default_rng(0)
    node, array = helper.make_node, numpy_helper.from_array
    if name == "float32":
        return model(
            [node("MatMul", ["x", "w"], ["y"])], [array(draw.standard_normal((inputs, outputs), np.float32), "w")]
        )
    if "level" in name:
        bits, kind = (2, TensorProto.INT2) if name.startswith("2") else (4, TensorProto.INT4)
        raw = draw.integers(0, 256, inputs * outputs * bits // 8).astype(np.uint8).tobytes()
        scale = draw.uniform(0.01, 0.02, (inputs // GROUP, outputs)).astype(np.float32)
        decode = node("DequantizeLinear", ["w", "scale"], ["v"], axis=0, block_size=GROUP)
        constants = [helper.make_tensor("w", kind, (inputs, outputs), raw, raw=True), array(scale, "scale")]
        return model([decode, node("MatMul", ["x", "v"], ["y"])], constants)
    constants = [
        array(draw.integers(-127, 128, (inputs, outputs)).astype(np.int8), "w"),
        array(draw.uniform(0.01, 0.02, outputs).astype(np.float32), "scale"),
        array(np.zeros(outputs, np.int8), "zero"),
    ]
    if name == "dynamic":
        return model(
            [node("DynamicQuantizeMatMul", ["x", "w", "scale", "zero"], ["y"], domain="com.microsoft")], constants
        )
    constants += [array(np.asarray(value, dtype), name) for name, value, dtype in FIXED]
    nodes = [
        node("QuantizeLinear", ["x", "step", "middle"], ["xq"]),
        node("DequantizeLinear", ["xq", "step", "middle"], ["xd"]),
        node("DequantizeLinear", ["w", "scale", "zero"], ["v"], axis=1),
        node("MatMul", ["xd", "v"], ["y" if name == "static to float" else "p"]),
    ]
    if name == "static":
        nodes += [
            node("QuantizeLinear", ["p", "y_step", "middle"], ["yq"]),
            node("DequantizeLinear", ["yq", "y_step", "middle"], ["y"]),
        ]
    return model(nodes, constants)


def session(made: bytes, library: Path | None = None, level: str = "") -> onnxruntime.InferenceSession:
    """One thread; with the library, or at an accuracy level."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if library:
        options.register_custom_ops_library(str(library))
    if level:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
    return onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])


def measure(sessions: dict[str, onnxruntime.InferenceSession], x: np.ndarray, outputs: int, turns: Turns) -> Times:
    """Median seconds of a run of each, in turn and in random order."""
    runs = []
    for one in sessions.values():
        bound = one.io_binding()
        bound.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(aligned(x)))
        result = onnxruntime.OrtValue.ortvalue_from_shape_and_type((len(x), outputs), np.float32, "cpu", 0)
        bound.bind_ortvalue_output("y", result)
        runs.append(partial(one.run_with_iobinding, bound))
    return dict(zip(sessions, map(float, np.median(interleaved(runs, turns), axis=1)), strict=True))


def lines(table: list[Row], libraries: dict[str, Path]) -> Iterator[str]:
    """The table, line by line."""
    yield "| op | activations | rows | inputs x outputs | us | TFLOP/s | ONNX Runtime, times as long | one run a turn |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in table:
        for inputs, outputs in SHAPES:
            sessions = {"": session(ours(row.op, inputs, outputs), libraries[row.activations])}
            for name in row.rivals:
                level = name[-1] if "level" in name else ""
                own = name == INT4.name
                made = ours(INT4, inputs, outputs) if own else rival(name, inputs, outputs)
                sessions[name] = session(made, libraries[row.activations] if own else None, level)
            x = np.random.default_rng(1).standard_normal((row.rows, inputs), np.float32)
            times, cold = (measure(sessions, x, outputs, turns) for turns in (WARM, COLD))
            took = times[""]
            ratios, colder = (
                ", ".join(f"{name}: {one[name] / one['']:.2f}" for name in row.rivals) for one in (times, cold)
            )
            speed = 2 * row.rows * inputs * outputs / took / 1e12
            yield (
                f"| {row.op.name} | {row.activations} | {row.rows} | {inputs}x{outputs} | {took * 1e6:.0f} "
                f"| {speed:.2f} | {ratios} | {colder} |"
            )


def builds(folder: Path) -> Iterator[tuple[Arithmetic, Path, str]]:
    """The libraries that the table needs, built into an empty cache and again from it."""
    os.environ["XDG_CACHE_HOME"] = str(folder)
    kinds: tuple[Arithmetic, ...] = ("int8", "exact")
    for activations in kinds:
        ops, took = {row.op for row in TABLE if row.activations == activations}, []
        for _ in range(2):
            start = time.perf_counter()
            out = build(ops, (native(),), folder / f"{activations}.so", activations)
            took.append(time.perf_counter() - start)
        text = f"{activations}: {len(ops)} ops, {out.stat().st_size / 1000:.0f} kB"
        yield activations, out, f"{text}, built in {took[0]:.1f} s, from the cache in {took[1] * 1000:.0f} ms"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(dict.fromkeys(row.part for row in TABLE)))
    parts = parser.parse_args().parts
    print(f"{machine()}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        made = list(builds(Path(folder)))
        table = [row for row in TABLE if not parts or row.part in parts]
        for line in lines(table, {activations: path for activations, path, _ in made}):
            print(line, flush=True)
        print("\nLibraries: " + "; ".join(text for _, _, text in made) + ".")


if __name__ == "__main__":
    main()
