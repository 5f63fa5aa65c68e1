"""Products with blocks of whole numbers that are stored alone, and activations rounded to int8, by ``vpdpbusd``.

As `int8_blocks`, with four inputs of 16 neighbouring outputs side by side: ``w [kept, rows / 16, columns / 4, 16, 4]``.
The instruction takes one factor without a sign: weights are stored with 128 added, and what that adds to a sum, 128
times the sum of the activations, is taken off where the sum starts. That number stands behind the activations of each
chunk: in memory a chunk has as many bytes as it has inputs, then the number, and as much room as `int8_blocks` needs.
"""

from qcc.codegen.cpu.rows.gemv_int8 import DOT, rounded
from qcc.codegen.cpu.rows.int8_blocks import SCALARS
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import LANES, Expr, T
from qcc.ir.kernel.op import Tile

POINTERS = {
    "q": "int32",
    "steps": "float32",
    "w": "int32",
    "scale": "float32",
    "starts": "int32",
    "places": "int32",
}
TOGETHER = 8  # registers of whole numbers, and as many of sums


def quantize(name: str, chunk: int) -> Expr:
    """A function ``(x, q, m / 127, y, chunks)`` as `gemv_int8.quantize`, with ``-128 sum(q)`` behind ``q``."""
    with emit.function(name) as builder:
        pointers = {"x": "float32", "q": "int8", "steps": "float32"}
        x, q, steps, _, chunks = emit.arguments(pointers, ("chunks",), unaligned="x")
        with T.serial(T.int64(0), chunks) as at:
            starts = range(0, chunk, LANES)
            parts = [T.bind(x[emit.lanes(at * chunk + start)]) for start in starts]
            whole = rounded(parts, steps, at)
            for start, part in zip(starts, whole, strict=True):
                T.buffer_store(q, T.cast(part, "int8x16"), [emit.lanes(at * (2 * chunk) + start)])
            both = whole[0] if len(whole) == 1 else whole[0] + whole[1]
            behind = T.bind(emit.llvm("llvm.vector.reduce.add", "int32", both) * T.int32(-128))
            T.buffer_store(q, T.reinterpret("int8x4", behind), [emit.lanes(at * (2 * chunk) + chunk, 4)])
    return builder.get()


def product(name: str, tile: Tile, rows: int, chunk: int) -> Expr:
    """A function ``(q, steps, w, scale, starts, places, y, groups, inputs, stride, first, count)``.

    As `int8_blocks.product`, on what `quantize` made.

    Args:
        name: of the function.
        tile: outputs and inputs, multiples of 16.
        rows: that are multiplied at once.
        chunk: inputs that share a step.
    """
    high, wide = tile
    fours, apart = chunk // 4, chunk // 2  # words of activations, and of a chunk
    parts = next(size for size in (4, 2, 1) if high // LANES % size == 0 and size * rows <= max(TOGETHER, rows))
    with emit.function(name) as builder:
        q, steps, w, scale, starts, places, y, groups, inputs, stride, first, count = emit.arguments(POINTERS, SCALARS)
        chunks = T.bind(T.truncdiv(inputs, T.int64(chunk)))
        with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), count) as row:
            begin = T.bind(T.Cast("int64", starts[first + row]))
            end = T.bind(T.Cast("int64", starts[first + row + 1]))
            with T.serial(T.int64(0), T.int64(high // LANES // parts)) as some:
                sums = emit.accumulators(rows * parts)
                dots = emit.accumulators(rows * parts, "int32")
                emit.clear(sums)
                with T.serial(begin, end) as kept, T.serial(T.int64(0), T.int64(wide // chunk)) as at:
                    here = T.bind(T.Cast("int64", places[kept]) * (wide // chunk) + at)
                    for of in range(rows):
                        behind = T.bind(emit.spread(q[((group * rows + of) * chunks + here) * apart + fours]))
                        for part in range(parts):
                            emit.put(dots[of * parts + part], behind)
                    for four in range(fours):
                        words = []
                        for part in range(parts):
                            strip = kept * (high // LANES) + some * parts + part
                            start = (strip * (wide // 4) + at * fours + four) * LANES
                            words.append(T.bind(T.reinterpret("int8x64", w[emit.lanes(start)])))
                        for of in range(rows):
                            start = ((group * rows + of) * chunks + here) * apart + four
                            read = T.bind(T.reinterpret("int8x64", emit.spread(q[start])))
                            for part, word in enumerate(words):
                                dot = dots[of * parts + part]
                                emit.put(dot, emit.llvm(DOT, "int32x16", emit.get(dot), word, read))
                    for part in range(parts):
                        grid = T.bind(scale[emit.lanes(kept * high + (some * parts + part) * LANES)])
                        for of in range(rows):
                            factor = grid * emit.spread(steps[(group * rows + of) * chunks + here])
                            dot = T.cast(emit.get(dots[of * parts + part]), "float32x16")
                            emit.add(sums[of * parts + part], dot * factor)
                for of in range(rows):
                    for part in range(parts):
                        place = (group * rows + of) * stride + row * high + (some * parts + part) * LANES
                        T.buffer_store(y, emit.get(sums[of * parts + part]), [emit.lanes(place)])
    return builder.get()
