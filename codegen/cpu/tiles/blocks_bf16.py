"""Products by AMX with blocks that are stored alone, as bfloat16.

A *step* along the inputs is 32 of them, or 16 where a block is an odd multiple of 16 wide: tiles are then half as wide.
Weights are ``w [kept, rows / 16, columns / step, step / 2, 16, 2]``: of 16 outputs pairs of inputs side by side, which
is what a tile of weights holds. Activations are ``a [rows / 16, inputs / step, 16, step]``. Sums stay in tiles from the
first block of a row of them to the last. ``starts`` and ``places`` are those of ``rows.blocks``.
"""

from qcc.codegen.cpu.tiles.gemm import amx
from qcc.codegen.cpu.tiles.gemm_bf16 import TO_BF16
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import LANES, Expr, T
from qcc.ir.kernel.op import Tile

HALF_TO_BF16 = "llvm.x86.avx512bf16.cvtneps2bf16.512"
SCALARS = ("groups", "inputs", "stride", "first", "count")
PLACES = {"starts": "int32", "places": "int32"}
PAIRS = LANES // 2
RESULTS = 4  # tiles of them; two more hold activations, and two weights


def pack(name: str, step: int) -> Expr:
    """A function ``(x, a, y, steps, rows)``: float32 rows to tiles ``a [rows / 16, steps, 16, step]``.

    ``y`` is not touched, nor are rows that are missing of the last tile.
    """
    with emit.function(name) as builder:
        pointers = {"x": "float32", "a": "int32"}
        x, a, _, steps, rows = emit.arguments(pointers, ("steps", "rows"), unaligned="x")
        words = step // 2
        with T.serial(T.int64(0), rows) as row, T.serial(T.int64(0), steps) as at:
            start = (row * steps + at) * step
            if step == LANES:
                made = emit.llvm(HALF_TO_BF16, "bfloat16x16", x[emit.lanes(start)])
            else:
                made = emit.llvm(TO_BF16, "bfloat16x32", x[emit.lanes(start + LANES)], x[emit.lanes(start)])
            tile = T.truncdiv(row, T.int64(LANES)) * steps + at
            place = (tile * LANES + T.truncmod(row, T.int64(LANES))) * words
            T.buffer_store(a, T.reinterpret(f"int32x{words}", made), [emit.lanes(place, words)])
    return builder.get()


def product(name: str, tile: Tile, step: int) -> Expr:
    """A function ``(a, w, starts, places, config, y, groups, inputs, stride, first, count)``.

    It fills ``y`` for so many groups of 16 rows, and for ``count`` rows of blocks from the ``first`` one on.
    """
    across = tile[1] // step
    sides = 2 if tile[0] % (2 * LANES) == 0 else 1
    ups = RESULTS // sides
    pointers = {"a": "int32", "w": "int32", **PLACES, "config": "uint8"}
    with emit.function(name) as builder:
        a, w, starts, places, config, y, groups, inputs, stride, first, count = emit.arguments(pointers, SCALARS)
        amx("ldtilecfg", T.address_of(config[0]))
        whole = T.bind(T.truncdiv(groups, T.int64(ups)))
        steps = T.bind(T.truncdiv(inputs, T.int64(step)))
        with T.serial(T.int64(0), count) as row:
            begin = T.bind(T.Cast("int64", starts[first + row]))
            end = T.bind(T.Cast("int64", starts[first + row + 1]))
            with T.serial(T.int64(0), T.int64(tile[0] // LANES // sides)) as part:

                def some(group: Expr, high: int) -> None:
                    """So many groups of rows times a part of a row of blocks."""
                    for index in range(high * sides):
                        amx("tilezero", T.int8(index))
                    with T.serial(begin, end) as kept:
                        start, ahead = (T.bind(T.Cast("int64", places[kept + one]) * across) for one in range(2))
                        with T.serial(T.int64(0), T.int64(across)) as one:
                            strip = kept * (tile[0] // LANES) + part * sides
                            weights = [
                                w[((strip + side) * across + one) * (step // 2 * LANES)] for side in range(sides)
                            ]
                            size = LANES * step // 2
                            met, next_ = (
                                [((group + up) * steps + from_ + one) * size for up in range(high)]
                                for from_ in (start, ahead)
                            )
                            for place in next_:  # which one is next no hardware can guess
                                for line in range(0, size, LANES):
                                    emit.fetch(a[place + line])
                            _multiply([a[place] for place in met], weights, 2 * step)
                    for index in range(high * sides):
                        up, side = divmod(index, sides)
                        place = (group + up) * LANES * stride + row * tile[0] + (part * sides + side) * LANES
                        amx("tilestored64", T.int8(index), T.address_of(y[place]), stride * 4)

                with T.serial(T.int64(0), whole) as group:
                    some(group * ups, ups)
                with T.serial(whole * ups, groups) as group:
                    some(group, 1)
        amx("tilerelease")
    return builder.get()


def _multiply(rows: list[Expr], weights: list[Expr], stride: int) -> None:
    """Some tiles of rows times one or two of weights."""
    for side, place in enumerate(weights):
        amx("tileloadd64", T.int8(6 + side), T.address_of(place), T.int64(64))
    for up, place in enumerate(rows):
        amx("tileloadd64", T.int8(4 + up % 2), T.address_of(place), T.int64(stride))
        for side in range(len(weights)):
            amx("tdpbf16ps", T.int8(up * len(weights) + side), T.int8(4 + up % 2), T.int8(6 + side))


def one_row(name: str, tile: Tile) -> Expr:
    """A function ``(x, w, starts, places, y, groups, inputs, stride, first, count)`` for single rows of float32."""
    parts = tile[0] // LANES
    pointers = {"x": "float32", "w": "int32", **PLACES}
    with emit.function(name) as builder:
        x, w, starts, places, y, groups, inputs, stride, first, count = emit.arguments(pointers, SCALARS, unaligned="x")
        with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), count) as row:
            begin = T.bind(T.Cast("int64", starts[first + row]))
            end = T.bind(T.Cast("int64", starts[first + row + 1]))
            with T.serial(T.int64(0), T.int64(parts)) as part:
                sums = emit.accumulators(4)
                emit.clear(sums)
                steps = T.serial(T.int64(0), T.int64(tile[1] // LANES))
                with T.serial(begin, end) as kept, steps as step:
                    start = T.bind(group * inputs + T.Cast("int64", places[kept]) * tile[1] + step * LANES)
                    at = T.bind(((kept * parts + part) * (tile[1] // LANES) + step) * (PAIRS * LANES))
                    for pair in range(PAIRS):
                        word = T.bind(w[emit.lanes(at + pair * LANES)])
                        low, high = T.shift_left(word, emit.word(16)), T.bitwise_and(word, emit.word(0xFFFF0000))
                        for half, bits in enumerate((low, high)):
                            read = emit.spread(x[start + 2 * pair + half])
                            emit.add(sums[pair % 2 * 2 + half], T.reinterpret("float32x16", bits) * read)
                value = (emit.get(sums[0]) + emit.get(sums[1])) + (emit.get(sums[2]) + emit.get(sums[3]))
                T.buffer_store(y, value, [emit.lanes(group * stride + row * tile[0] + part * LANES)])
    return builder.get()
