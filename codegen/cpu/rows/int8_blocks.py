"""Products with blocks of whole numbers that are stored alone, and activations that were rounded to int8.

Weights are bytes with a sign, ``w [kept, rows / 16, columns / 2, 16, 2]``: of 16 neighbouring outputs two inputs each,
which ``vpmaddwd`` multiplies and adds up in 32 bits once they are widened. So nothing saturates, and no sum of
activations is needed. A scale belongs to one output of one tile. ``starts`` and ``places`` are those of ``blocks``.
"""

from qcc.codegen.cpu.rows.gemv_int8 import clipped, rounded
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import Expr, T
from qcc.ir.kernel.op import Tile

PAIRS = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
"""By lanes; LLVM makes one instruction of it and the addition behind where there is VNNI."""
TOGETHER = 8  # registers of whole numbers, so that those that weights and activations pass through are left
POINTERS = {
    "q": "int32",
    "steps": "float32",
    "w": "int8",
    "scale": "float32",
    "starts": "int32",
    "places": "int32",
}
SCALARS = ("groups", "inputs", "stride", "first", "count")


def quantize(name: str, chunk: int, static: bool = False) -> Expr:
    """A function ``(x, q, m / 127, y, chunks)`` that rounds as `gemv_int8.quantize` does, to int16 in memory.

    Where it is ``static`` the caller has filled the steps, which are all the same.
    """
    with emit.function(name) as builder:
        pointers = {"x": "float32", "q": "int16", "steps": "float32"}
        x, q, steps, _, chunks = emit.arguments(pointers, ("chunks",), unaligned="x")
        with T.serial(T.int64(0), chunks) as at:
            starts = range(0, chunk, emit.LANES)
            parts = [T.bind(x[emit.lanes(at * chunk + start)]) for start in starts]
            if static:
                inverse = T.bind(T.float32(1) / steps[0])
                found = [T.bind(T.cast(clipped(part, inverse), "int32x16")) for part in parts]
            else:
                found = rounded(parts, steps, at)
            for start, whole in zip(starts, found, strict=True):
                T.buffer_store(q, T.cast(whole, "int16x16"), [emit.lanes(at * chunk + start)])
    return builder.get()


def product(name: str, tile: Tile, sizes: tuple[int, int, int]) -> Expr:
    """A function ``(q, steps, w, scale, starts, places, y, groups, inputs, stride, first, count)``.

    As `blocks.product`, over pairs of activations that `quantize` rounded.

    Args:
        name: of the function.
        tile: outputs and inputs, multiples of 16.
        sizes: rows, the lanes of a register, and how many inputs share a step.
    """
    (high, wide), (rows, lanes, chunk) = tile, sizes
    parts = next(size for size in (4, 2, 1) if high // lanes % size == 0 and size * rows <= max(TOGETHER, rows))
    with emit.function(name) as builder:
        q, steps, w, scale, starts, places, y, groups, inputs, stride, first, count = emit.arguments(POINTERS, SCALARS)
        chunks = T.bind(T.truncdiv(inputs, T.int64(chunk)))
        with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), count) as row:
            begin = T.bind(T.Cast("int64", starts[first + row]))
            end = T.bind(T.Cast("int64", starts[first + row + 1]))
            with T.serial(T.int64(0), T.int64(high // lanes // parts)) as some:
                sums = emit.accumulators(rows * parts, lanes=lanes)
                dots = emit.accumulators(rows * parts, "int32", lanes)
                emit.clear(sums)
                with T.serial(begin, end) as kept, T.serial(T.int64(0), T.int64(wide // chunk)) as at:
                    here = T.bind(T.Cast("int64", places[kept]) * (wide // chunk) + at)
                    for dot in dots:
                        emit.put(dot, emit.word(0, lanes))
                    for pair in range(chunk // 2):
                        words = []
                        for part in range(parts):
                            block, side = divmod(part * lanes, emit.LANES)
                            strip = kept * (high // emit.LANES) + some * (parts * lanes // emit.LANES) + block
                            start = (strip * (wide // 2) + at * (chunk // 2) + pair) * (2 * emit.LANES) + 2 * side
                            words.append(T.bind(T.cast(w[emit.lanes(start, 2 * lanes)], f"int16x{2 * lanes}")))
                        for of in range(rows):
                            two = q[((group * rows + of) * chunks + here) * (chunk // 2) + pair]
                            read = T.bind(T.reinterpret(f"int16x{2 * lanes}", emit.spread(two, lanes)))
                            for part, word in enumerate(words):
                                made = emit.llvm(PAIRS[lanes], f"int32x{lanes}", word, read)
                                emit.add(dots[of * parts + part], made)
                    for part in range(parts):
                        grid = T.bind(scale[emit.lanes(kept * high + (some * parts + part) * lanes, lanes)])
                        for of in range(rows):
                            factor = grid * emit.spread(steps[(group * rows + of) * chunks + here], lanes)
                            dot = T.cast(emit.get(dots[of * parts + part]), f"float32x{lanes}")
                            emit.add(sums[of * parts + part], dot * factor)
                for of in range(rows):
                    for part in range(parts):
                        place = (group * rows + of) * stride + row * high + (some * parts + part) * lanes
                        T.buffer_store(y, emit.get(sums[of * parts + part]), [emit.lanes(place, lanes)])
    return builder.get()
