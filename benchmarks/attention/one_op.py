"""One attention in ONNX Runtime: as exporters spell it, and as each op that computes it.

    python -m benchmarks.attention.one_op [--threads N]

Prints one row a shape: each op's time beside that of the ops that torch's exporter writes, in the same process and in
turns, the median of 20. The last is a kernel of ours, which takes no rows of earlier runs. Heads share keys where there
are such (9 of 3 with 64 channels, as SmolLM2 has), else each has its own (12 with 32, as MiniLM). A mask is added to
scores.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from benchmarks.processes.timing import machine
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import native
from qcc.compiler.runtime.register import register
from qcc.ir.graph.ops import Array
from qcc.ir.kernel.dense_op import DenseOp
from qcc.ir.onnx.file.runtime import onnxruntime

ROUNDS, SEED = 20, 0
SHAPES = ((1, 32, 0), (1, 128, 0), (1, 512, 0), (16, 32, 0), (4, 128, 0))
DECODING = ((1, 1, 64), (1, 1, 512), (1, 1, 2047), (4, 1, 512), (1, 64, 512), (2, 64, 512))
SHARED, OWN = (9, 3, 64), (12, 12, 32)
OURS = DenseOp(*OWN, masked=True)
LOWEST = np.finfo(np.float32).min
DOMAIN = "com.microsoft"


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    print(f"# {machine()}, {threads} thread{'s' if threads > 1 else ''}\n")
    print("| batch, rows, earlier rows | exported | the runtime's own op | `Attention` | ours |\n|" + " --- |" * 5)
    with tempfile.TemporaryDirectory() as folder:
        library = build([OURS], (native(),), Path(folder) / "kernels.so")
        for shape in (*SHAPES, *DECODING):
            print(row(shape, threads, library), flush=True)


def row(shape: tuple[int, int, int], threads: int, library: Path) -> str:
    """One row of the table."""
    heads, feeds = SHARED if shape[2] else OWN, _feeds(shape)
    bodies = [_exported(*heads), _own(*heads[:2]), _standard(*heads[:2])]
    sessions = [_session(body, feeds, threads) for body in bodies]
    if not shape[2]:
        sessions.append(_session(_ours(), feeds, threads, library))
    times: list[list[float]] = [[] for _ in sessions]
    for turn in range(ROUNDS + 1):
        for session, found in zip(sessions, times, strict=True):
            start = time.perf_counter()
            try:
                session.run(None, feeds)
            except Exception:
                continue
            found += [time.perf_counter() - start] if turn else []
    base = float(np.median(times[0]))
    shares = (f"{np.median(found) / base:.2f}x" if found else "refused" for found in times[1:])
    row = f"| {', '.join(map(str, shape))} | {1e6 * base:,.0f} us | {' | '.join(shares)} |"
    return row + " - |" * (len(sessions) == len(bodies))


def _feeds(shape: tuple[int, int, int]) -> dict[str, Array]:
    batch, rows, past = shape
    heads, shared, width = SHARED if past else OWN
    draw, total = np.random.default_rng(SEED), rows + past
    sizes = {"q": heads * width, "k": shared * width, "v": shared * width}
    feeds = {name: draw.standard_normal((batch, rows, size), np.float32) for name, size in sizes.items()}
    hidden = ~np.tri(rows, total, past, dtype=bool) if past else np.arange(total) >= total - 3
    mask = np.broadcast_to(np.where(hidden, LOWEST, 0), (batch, 1, rows, total))
    feeds["mask"] = np.ascontiguousarray(mask, np.float32)
    if past:
        feeds |= {name: draw.standard_normal((batch, shared, past, width), np.float32) for name in ("pk", "pv")}
        feeds |= {"last": np.full(batch, total - 1, np.int32), "total": np.array(total, np.int32)}
    return feeds


def _session(
    body: str, feeds: dict[str, Array], threads: int, library: Path | None = None
) -> "onnxruntime.InferenceSession":
    types = {np.dtype(np.float32): "float", np.dtype(np.int32): "int32"}
    inputs = (f"{types[array.dtype]}[{', '.join('?' * array.ndim)}] {name}" for name, array in feeds.items())
    head = '<ir_version: 11, opset_import: ["" : 23, "com.microsoft" : 1, "qcc" : 1]>'
    outputs = "float y, float ak, float av" if "pk" in feeds else "float y"
    model = onnx.parser.parse_model(f"{head}\ng ({', '.join(inputs)}) => ({outputs}) {{\n{body}\n}}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if library is not None:
        register(options, str(library))
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def _ours() -> str:
    return f"y = qcc.{OURS.name} <scale = {OURS.attributes['scale']}> (q, k, v, mask)"


def _standard(heads: int, shared: int) -> str:
    op = f"Attention <q_num_heads = {heads}, kv_num_heads = {shared}>"
    return f"y, ak, av = {op} (q, k, v, mask, pk, pv)" if heads > shared else f"y = {op} (q, k, v, mask)"


def _own(heads: int, shared: int) -> str:
    if heads == shared:
        return f"y = {DOMAIN}.MultiHeadAttention <num_heads = {heads}> (q, k, v, , , mask)"
    op = f"{DOMAIN}.GroupQueryAttention <num_heads = {heads}, kv_num_heads = {shared}>"
    return f"y, ak, av = {op} (q, k, v, pk, pv, last, total, , , , mask)"


def _exported(heads: int, shared: int, width: int) -> str:
    """As torch's exporter writes it."""
    lines = []
    for name, count in (("q", heads), ("k", shared), ("v", shared)):
        lines.append(f"{name}s = Constant <value_ints = [0, 0, {count}, {width}]> ()")
        lines += [f"{name}4 = Reshape ({name}, {name}s)", f"{name}h = Transpose <perm = [0, 2, 1, 3]> ({name}4)"]
    if heads > shared:
        lines += ["two = Constant <value_ints = [2]> ()", f"all = Constant <value_ints = [0, {heads}, -1, {width}]> ()"]
        lines.append(f"wide = Constant <value_ints = [1, 1, {heads // shared}, 1, 1]> ()")
        for name in "kv":
            lines += [f"a{name} = Concat <axis = 2> (p{name}, {name}h)", f"{name}5 = Unsqueeze (a{name}, two)"]
            lines += [f"{name}e = Expand ({name}5, wide)", f"{name}r = Reshape ({name}e, all)"]
    keys, values = ("kr", "vr") if heads > shared else ("kh", "vh")
    return "\n".join(
        [
            *lines,
            f"kt = Transpose <perm = [0, 1, 3, 2]> ({keys})",
            f"scale = Constant <value_float = {width**-0.5}> ()",
            "zero = Constant <value_float = 0.0> ()",
            "flat = Constant <value_ints = [0, 0, -1]> ()",
            "s = MatMul (qh, kt)\nz = Mul (s, scale)\nm = Add (z, mask)\np = Softmax <axis = -1> (m)",
            f"bad = IsNaN (p)\ngood = Where (bad, zero, p)\no = MatMul (good, {values})",
            "ot = Transpose <perm = [0, 2, 1, 3]> (o)\ny = Reshape (ot, flat)",
        ]
    )


if __name__ == "__main__":
    main()
