"""Products with blocks of whole numbers that are stored alone, and rows rounded to int8 by one step each: ``vpdpbusd``.

As `vnni_blocks`, with a step for a whole row, its own or one that the model holds. So what a tile adds takes one
multiplication, by its scale, and the step comes in at the end. The instruction takes one factor without a sign: here
that is the activations, with 128 added. What that adds to an output is the same in every row, 128 times the sum of its
weights, and is taken off where the sums start: ``offset [out]``, float32.
"""

from itertools import chain

from qcc.codegen.cpu.rows.gemv_int8 import DOT, TINY, clipped
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import LANES, Expr, T
from qcc.ir.kernel.op import Tile

POINTERS = {
    "q": "int32",
    "steps": "float32",
    "w": "int32",
    "scale": "float32",
    "offset": "float32",
    "starts": "int32",
    "places": "int32",
}
SCALARS = ("groups", "inputs", "stride", "first", "count")
MIDDLE = 128
PARTS = 2


def quantize(name: str, static: bool) -> Expr:
    """A function ``(x, q, steps, y, inputs, rows)``: ``q = rint(x / step) + 128`` as bytes, ``step = m / 127``.

    ``m`` is the largest magnitude of the row; NaN or infinity in it makes it so, and a row below 1e-30 counts as zero.
    Where it is ``static`` the caller has filled ``steps``, and what lies beyond -128 and 127 becomes these.
    """
    with emit.function(name) as builder:
        pointers = {"x": "float32", "q": "int8", "steps": "float32"}
        x, q, steps, _, inputs, rows = emit.arguments(pointers, ("inputs", "rows"), unaligned="x")
        count = T.bind(T.truncdiv(inputs, T.int64(LANES)))
        middle = emit.word(MIDDLE)
        with T.serial(T.int64(0), rows) as row:
            inverse = T.bind(T.float32(1) / steps[row]) if static else _own_step(x, row * inputs, count, steps, row)
            with T.serial(T.int64(0), count) as part:
                place = emit.lanes(row * inputs + part * LANES)
                near = T.cast(clipped(x[place], inverse), "int32x16") if static else _near(x[place], inverse)
                T.buffer_store(q, T.cast(near + middle, "int8x16"), [place])
    return builder.get()


def _own_step(x: Expr, start: Expr, count: Expr, steps: Expr, row: Expr) -> Expr:
    """127 over the largest magnitude of a row; that over 127 is its step."""
    top = emit.accumulators(1, "int32")[0]
    emit.put(top, emit.word(0))
    with T.serial(T.int64(0), count) as part:
        bits = T.reinterpret("int32x16", x[emit.lanes(start + part * LANES)])
        emit.put(top, T.max(emit.get(top), T.bitwise_and(bits, emit.word(0x7FFFFFFF))))
    largest = T.bind(emit.llvm("llvm.vector.reduce.smax", "int32", emit.get(top)))
    most = T.bind(T.reinterpret("float32", largest))
    T.buffer_store(steps, most * T.float32(1 / 127), [row])
    return T.bind(T.Select(most > T.float32(TINY), T.float32(127) / most, T.float32(0)))


def _near(x: Expr, inverse: Expr) -> Expr:
    return emit.nearest(x * emit.spread(inverse))


def product(name: str, tile: Tile, rows: int) -> Expr:
    """A function ``(q, steps, w, scale, offset, starts, places, y, groups, inputs, stride, first, count)``.

    As `vnni_blocks.product`, on what `quantize` made; weights have a sign, ``scale [kept, rows of a tile]``.

    Args:
        name: of the function.
        tile: outputs and inputs, multiples of 16.
        rows: that are multiplied at once.
    """
    high, wide = tile
    parts = PARTS if high % (PARTS * LANES) == 0 else 1
    with emit.function(name) as builder:
        declared = emit.arguments(POINTERS, SCALARS)
        q, steps, w, scale, offset, starts, places, y, groups, inputs, stride, first, count = declared
        words = T.bind(T.truncdiv(inputs, T.int64(4)))
        with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), count) as row:
            begin = T.bind(T.Cast("int64", starts[first + row]))
            end = T.bind(T.Cast("int64", starts[first + row + 1]))
            with T.serial(T.int64(0), T.int64(high // LANES // parts)) as some:
                strips = [T.bind(some * parts + part) for part in range(parts)]
                sums = [emit.accumulators(rows) for _ in strips]
                dots = [emit.accumulators(rows, "int32") for _ in strips]
                for strip, total in zip(strips, sums, strict=True):
                    less = T.bind(offset[emit.lanes((first + row) * high + strip * LANES)])
                    for one in total:
                        emit.put(one, less)
                with T.serial(begin, end) as kept:
                    here = T.bind(T.Cast("int64", places[kept]) * (wide // 4))
                    for one in chain(*dots):
                        emit.put(one, emit.word(0))
                    for four in range(wide // 4):
                        starts_at = [
                            ((kept * (high // LANES) + strip) * (wide // 4) + four) * LANES for strip in strips
                        ]
                        weights = [T.bind(T.reinterpret("int8x64", w[emit.lanes(at)])) for at in starts_at]
                        for of in range(rows):
                            read = emit.spread(q[(group * rows + of) * words + here + four])
                            read = T.bind(T.reinterpret("int8x64", read))
                            for dot, weight in zip(dots, weights, strict=True):
                                emit.put(dot[of], emit.llvm(DOT, "int32x16", emit.get(dot[of]), read, weight))
                    for strip, total, dot in zip(strips, sums, dots, strict=True):
                        grid = T.bind(scale[emit.lanes(kept * high + strip * LANES)])
                        for of in range(rows):
                            emit.add(total[of], T.cast(emit.get(dot[of]), "float32x16") * grid)
                for strip, total in zip(strips, sums, strict=True):
                    for of, one in enumerate(total):
                        place = (group * rows + of) * stride + row * high + strip * LANES
                        T.buffer_store(y, emit.get(one) * emit.spread(steps[group * rows + of]), [emit.lanes(place)])
    return builder.get()
