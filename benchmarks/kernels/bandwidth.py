"""One row through layers whose weights lie beyond the second cache, beside reading as many bytes.

    python -m benchmarks.kernels.bandwidth [--ops linear_int4_group32 ...]
        [--inputs 4096] [--outputs 4096] [--rounds 25]

A layer and a loop that does nothing but read, over as many bytes as the layer has in memory, take turns in one process;
each turn is as many runs as fill a few milliseconds, so that weights come from the cache that holds them, or from
memory. Times are a thread's own. ``share`` is the layer's bytes a second over the loop's in the same round, the median;
the bytes are codes, scales and zero points as kernels hold them, not what they are multiplied with.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.kernels.__main__ import ours, session
from benchmarks.processes.arrays import aligned
from benchmarks.processes.timing import machine
from qcc.codegen.cpu.ceilings.loops import runners
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import native
from qcc.codegen.cpu.product import product_of
from qcc.compiler.measure.timing import Turns, interleaved, paired
from qcc.ir.kernel.op import LinearOp, parse
from qcc.ir.onnx.file.runtime import onnxruntime

OPS = (*(f"linear_int{bits}_group32" for bits in (2, 3, 4, 8)), "linear_int8_channel")
TURN_S = 0.005


def main() -> None:
    """Print a line an op."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ops", nargs="+", default=list(OPS))
    add("--inputs", type=int, default=4096)
    add("--outputs", type=int, default=4096)
    add("--rounds", type=int, default=25)
    given = parser.parse_args()
    ops = [parse(name) for name in given.ops]
    print(f"# {machine()}, load {os.getloadavg()[0]:.1f}")
    print(f"# python -m benchmarks.kernels.bandwidth, {given.inputs}x{given.outputs}")
    print("| op | MB | us | GB/s | share of reading |\n|---|---|---|---|---|", flush=True)
    read = runners(["read"], native())["read"]
    with tempfile.TemporaryDirectory() as folder:
        library = build(ops, (native(),), Path(folder) / "k.so")
        for op in ops:
            held = held_bytes(op, given.inputs, given.outputs)
            layer = _layer(op, given.inputs, given.outputs, library)
            data = np.full(held // 64 * 16 + 16, 1, np.int32)
            loop = partial(read, aligned_words(data), 1)
            taken, reading = interleaved([layer, loop], Turns(given.rounds, TURN_S, warm=True, own=True))
            share = paired(reading, taken).median
            us = float(np.median(taken)) * 1e6
            print(f"| {op.name} | {held / 1e6:.1f} | {us:.0f} | {held / us / 1e3:.1f} | {share:.0%} |", flush=True)


def held_bytes(op: LinearOp, inputs: int, outputs: int) -> int:
    """What a kernel reads of a layer."""
    scales = 2 if product_of(op).reads_halves(native()) else 4
    groups = inputs // (op.group or inputs) * outputs
    zeros = 2 if "zero" in op.weight_inputs else 0
    return inputs * outputs * product_of(op).codes.bits // 8 + groups * (scales + zeros)


def aligned_words(data: np.ndarray) -> np.ndarray:
    """From a multiple of 64 bytes on."""
    return data[-data.ctypes.data % 64 // 4 :][: len(data) // 16 * 16 - 16]


def _layer(op: LinearOp, inputs: int, outputs: int, library: Path) -> Callable[[], object]:
    one = session(ours(op, inputs, outputs), library)
    bound = one.io_binding()
    x = aligned(np.random.default_rng(1).standard_normal((1, inputs), np.float32))
    bound.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    result = onnxruntime.OrtValue.ortvalue_from_shape_and_type((1, outputs), np.float32, "cpu", 0)
    bound.bind_ortvalue_output("y", result)
    return partial(one.run_with_iobinding, bound)


if __name__ == "__main__":
    main()
