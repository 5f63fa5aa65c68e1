"""Codes times activations that were rounded to int8, where there is NEON with dot products; else as in ``gemv_int8``.

``sdot`` adds the products of four codes and four activations, both with a sign, in 32 bits. Codes of up to 7 bits are
small enough to be read so. Of 8 bits 128 is taken off, and its product with the activations' sum added at the start.
"""

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen import emit
from qcc.codegen.emit import Expr, T
from qcc.codegen.gemv_int8 import POINTERS, SCALARS

DOT = "llvm.aarch64.neon.sdot.v4i32.v16i8"
LANES = 4
PARTS = emit.BLOCKS * emit.LANES // LANES  # of 4 outputs


def gemv(name: str, bits: int, symmetric: bool, rows: int, static: bool = False) -> Expr:
    """A function of the arguments of ``gemv_int8.gemv``."""
    with emit.function(name) as builder:
        q, steps, sums, w, scale, offset, y, chunks, per, first, count = emit.arguments(POINTERS, SCALARS)
        groups = T.bind(T.truncdiv(chunks, per))
        with T.serial(T.int64(0), count) as strip:
            total = emit.accumulators(rows * PARTS, "int32" if static else "float32", LANES)
            for register in total:
                emit.put(register, emit.word(0, LANES) if static else emit.spread(T.float32(0), LANES))
            with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), per) as inner:
                chunk = T.bind(group * per + inner)
                places = [row * chunks + chunk for row in range(rows)]
                fours = [[T.bind(q[emit.lanes(at * 8 + half, LANES)]) for half in (0, LANES)] for at in places]
                for part in range(PARTS):
                    block, side = T.bind((first + strip) * emit.BLOCKS + part // 4), part % 4 * LANES
                    start = (block * chunks + chunk) * bits * 16 + side
                    words = [T.bind(w[emit.lanes(start + bit * 16, LANES)]) for bit in range(bits)]
                    place = emit.lanes((block * groups + group) * 16 + side, LANES)
                    zero = _zero(bits, None if symmetric else T.cast(offset[place], "int32x4"))
                    dots = [emit.spread(T.int32(0) - sums[at], LANES) * zero for at in places]
                    grid = T.bind(scale[place])
                    for row, dot in enumerate(_dots(words, bits, fours, dots)):
                        factor = grid * emit.spread(steps[places[row]], LANES)
                        emit.add(total[row * PARTS + part], dot if static else T.cast(dot, "float32x4") * factor)
            for row in range(rows):
                for part in range(PARTS):
                    at = (row * count + strip) * 64 + part * LANES
                    value = emit.get(total[row * PARTS + part])
                    if static:
                        grid = scale[emit.lanes((first + strip) * 64 + part * LANES, LANES)]
                        value = T.cast(value, "float32x4") * (grid * emit.spread(steps[0], LANES))
                    T.buffer_store(y, value, [emit.lanes(at, LANES)])
    return builder.get()


def _zero(bits: int, offset: Expr | None) -> Expr:
    """The code of zero, as ``sdot`` reads codes."""
    less = 128 if bits == 8 else 0
    if offset is None:
        return emit.word((1 << bits - 1) - less, LANES)
    return T.bind(offset - emit.word(less, LANES) if less else offset)


def _dots(words: list[Expr], bits: int, fours: list[list[Expr]], start: list[Expr]) -> list[Expr]:
    """For each row the products of a chunk of 4 outputs, added to the start."""
    dots = start
    for number in range(emit.QUADS):
        codes = emit.quad(words, bits, number, LANES)
        codes = T.bitwise_xor(codes, emit.word(0x80808080, LANES)) if bits == 8 else codes
        codes = T.bind(T.reinterpret("int8x16", codes))
        lane = [T.int32(number % LANES)] * LANES
        spread = [T.reinterpret("int8x16", tirx.Shuffle([halves[number // LANES]], lane)) for halves in fours]
        dots = [T.bind(emit.llvm(DOT, "int32x4", dot, codes, four)) for dot, four in zip(dots, spread, strict=True)]
    return dots
