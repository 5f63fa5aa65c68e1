"""What a kernel for two of every four inputs would gain, in float32.

    python -m benchmarks.sparse.few_of_many

Eight outputs at a time: of four neighbouring values of `x` each output takes the two that it has weights for
(`vpermilps`), whose places lie beside the weights, a byte each. Beside it stands the kernel of 16x16 blocks with all
blocks, and with half of them: the same loops, the same packing of weights. One thread, taken in turn, medians of the
thread's own time; a ratio is how many times as long the dense one takes.
"""

import ctypes
import time
from collections.abc import Callable

import numpy as np
import tvm  # type: ignore[import-untyped]  # TVM has no stubs

from benchmarks.processes.arrays import aligned
from benchmarks.processes.timing import machine
from qcc.codegen.cpu.library.generate import compiled
from qcc.codegen.cpu.processors.processors import native
from qcc.codegen.cpu.rows import blocks
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import Expr, T

SIZE, LANES, TURNS = 1024, 8, 41
COUNTS = (1, 4, 16, 128)
PERMUTE = "llvm.x86.avx.vpermilvar.ps.256"
POINTERS = {"x": "float32", "w": "float32", "at": "uint8"}


def product(name: str, rows: int) -> Expr:
    """A function ``(x, w, at, y, groups, inputs, outputs)``; weights and places are ``[out / 8, in / 4, 2, 8]``."""
    with emit.function(name) as builder:
        x, w, at, y, groups, inputs, outputs = emit.arguments(POINTERS, ("groups", "inputs", "outputs"), unaligned="x")
        fours = T.bind(T.truncdiv(inputs, T.int64(4)))
        with T.serial(T.int64(0), T.truncdiv(outputs, T.int64(LANES))) as strip, T.serial(T.int64(0), groups) as group:
            ways = [emit.accumulators(rows, lanes=LANES) for _ in range(4 if rows == 1 else 2)]
            for way in ways:
                emit.clear(way)
            with T.serial(T.int64(0), T.truncdiv(fours, T.int64(2))) as pair:
                for four in range(2):
                    here = T.bind((strip * fours + pair * 2 + four) * (2 * LANES))
                    weights = [T.bind(w[emit.lanes(here + one * LANES, LANES)]) for one in range(2)]
                    places = [T.bind(T.cast(at[emit.lanes(here + one * LANES, LANES)], "int32x8")) for one in range(2)]
                    for of in range(rows):
                        start = (group * rows + of) * inputs + (pair * 2 + four) * 4
                        read = T.bind(_twice(x[emit.lanes(start, 4)]))
                        for one in range(2):
                            found = emit.llvm(PERMUTE, "float32x8", read, places[one])
                            way = ways[(2 * four + one) % len(ways)]
                            emit.add(way[of], weights[one] * found)
            for of in range(rows):
                value = emit.get(ways[0][of])
                for way in ways[1:]:
                    value = value + emit.get(way[of])
                T.buffer_store(y, value, [emit.lanes((group * rows + of) * outputs + strip * LANES, LANES)])
    return builder.get()


def _twice(four: Expr) -> Expr:
    """Four lanes, and the same again."""
    from tvm import tirx

    return tirx.Shuffle([four, four], [T.int32(lane) for lane in range(LANES)])


def call(function: Expr, arrays: list[np.ndarray], y: Expr, numbers: list[int]) -> Callable[[], None]:
    """A run of a function."""

    def run() -> None:
        function(*(ctypes.c_void_p(array.ctypes.data) for array in arrays), y, *numbers)

    return run


def of_four(x: np.ndarray, dense: np.ndarray, made: Expr, each: int) -> tuple[Callable[[], None], Expr, np.ndarray]:
    """A run over two of every four weights, its result, and what it should be."""
    fours = dense.reshape(SIZE, -1, 4)
    places = np.sort(np.argsort(-np.abs(fours), 2, kind="stable")[..., :2], 2)
    values = np.take_along_axis(fours, places, 2)
    kept = np.zeros_like(fours)
    np.put_along_axis(kept, places, values, 2)
    packed = [aligned(np.moveaxis(one.reshape(-1, LANES, SIZE // 4, 2), 1, 3)) for one in (values, places)]
    y = tvm.runtime.tensor(np.zeros(x.size, np.float32))
    arrays = [x, packed[0], aligned(packed[1].astype(np.uint8))]
    return call(made, arrays, y, [len(x) // each, SIZE, SIZE]), y, x @ kept.reshape(SIZE, SIZE).T


def in_blocks(x: np.ndarray, stays: np.ndarray, made: Expr, each: int) -> Callable[[], None]:
    """A run over 16x16 blocks, of which some stay."""
    starts = aligned(np.concatenate([[0], np.cumsum(stays.sum(1))]).astype(np.int32))
    places = aligned(np.append(np.nonzero(stays)[1], 0).astype(np.int32))
    weights = aligned(np.random.default_rng(0).standard_normal(int(stays.sum()) * 256).astype(np.float32))
    y = tvm.runtime.tensor(np.zeros(x.size, np.float32))
    return call(made, [x, weights, starts, places], y, [len(x) // each, SIZE, SIZE, 0, SIZE // 16])


def main() -> None:
    """Print the table."""
    draw = np.random.default_rng(0)
    dense = draw.standard_normal((SIZE, SIZE)).astype(np.float32)
    stays = draw.permutation(64 * 64).reshape(64, 64) < 64 * 64 // 2
    print(f"{machine()}\n\n| rows | `of(2, 4)` | half of 16x16 | dense, us |\n| --- | --- | --- | --- |")
    for rows in COUNTS:
        each = min(rows, 4)
        functions = {"of": product("of", each), "blocks": blocks.product("blocks", (16, 16), each)}
        library = compiled(functions, native())
        x = aligned(draw.standard_normal((rows, SIZE)).astype(np.float32))
        first, y, wanted = of_four(x, dense, library["of"], each)
        first()
        assert np.abs(y.numpy().reshape(wanted.shape) - wanted).max() < 1e-2
        runs = [first, *(in_blocks(x, one, library["blocks"], each) for one in (stays, np.ones_like(stays)))]
        times = np.array([[_seconds(run, max(1, 64 // rows)) for run in runs] for _ in range(TURNS)])
        of, half, whole = np.median(times, 0)
        print(f"| {rows} | {whole / of:.2f} | {whole / half:.2f} | {whole * 1e6:,.0f} |", flush=True)


def _seconds(run: Callable[[], None], times: int) -> float:
    start = time.thread_time()
    for _ in range(times):
        run()
    return (time.thread_time() - start) / times


if __name__ == "__main__":
    main()
