"""Codes times activations that were rounded to int8, where there is AVX2 but no VNNI; else as in ``gemv_int8``.

``vpmaddubsw`` adds two products of a code and an activation in 16 bits, and saturates. It never has to: a pair is at
most ``2 * 127 * (2**bits - 1)``, which fits up to 7 bits, and several pairs where codes are small; the highest of 8
bits is multiplied apart. ``vpmaddwd`` with ones then adds the halves of a quad in 32 bits.
"""

from qcc.codegen import emit
from qcc.codegen.emit import Expr, T
from qcc.codegen.gemv_int8 import POINTERS, SCALARS

PAIRS = "llvm.x86.avx2.pmadd.ub.sw"
WIDEN = "llvm.x86.avx2.pmadd.wd"
LANES = 8
HALVES = 2 * emit.BLOCKS  # of 8 outputs


def gemv(name: str, bits: int, symmetric: bool, rows: int, static: bool = False) -> Expr:
    """A function of the arguments of ``gemv_int8.gemv``."""
    with emit.function(name) as builder:
        q, steps, sums, w, scale, offset, y, chunks, per, first, count = emit.arguments(POINTERS, SCALARS)
        groups = T.bind(T.truncdiv(chunks, per))
        with T.serial(T.int64(0), count) as strip:
            total = emit.accumulators(rows * HALVES, "int32" if static else "float32", LANES)
            for register in total:
                emit.put(register, emit.word(0, LANES) if static else emit.spread(T.float32(0), LANES))
            with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), per) as inner:
                chunk = T.bind(group * per + inner)
                for half in range(HALVES):
                    block, side = T.bind((first + strip) * emit.BLOCKS + half // 2), half % 2 * LANES
                    place = emit.lanes((block * groups + group) * 16 + side, LANES)
                    starts = [((block * chunks + chunk) * bits + bit) * 16 + side for bit in range(bits)]
                    words = [T.bind(w[emit.lanes(start, LANES)]) for start in starts]
                    zero = None if symmetric else T.bind(T.cast(offset[place], "int32x8"))
                    zero = emit.word(1 << bits - 1, LANES) if zero is None else zero
                    dots = [emit.spread(T.int32(0) - sums[row * chunks + chunk], LANES) * zero for row in range(rows)]
                    fours = [[q[(row * chunks + chunk) * 8 + n] for n in range(emit.QUADS)] for row in range(rows)]
                    grid = T.bind(scale[place])
                    for row, dot in enumerate(_dots(words, bits, fours, dots)):
                        factor = grid * emit.spread(steps[row * chunks + chunk], LANES)
                        emit.add(total[row * HALVES + half], dot if static else T.cast(dot, "float32x8") * factor)
            for row in range(rows):
                for half in range(HALVES):
                    at = (row * count + strip) * 64 + half * LANES
                    value = emit.get(total[row * HALVES + half])
                    if static:
                        grid = scale[emit.lanes((first + strip) * 64 + half * LANES, LANES)]
                        value = T.cast(value, "float32x8") * (grid * emit.spread(steps[0], LANES))
                    T.buffer_store(y, value, [emit.lanes(at, LANES)])
    return builder.get()


def _dots(words: list[Expr], bits: int, fours: list[list[Expr]], start: list[Expr]) -> list[Expr]:
    """For each row the products of a chunk of 8 outputs, added to the start."""
    parts = [0xFF] if bits < 8 else [0x7F, 0x80]
    run = 32767 // (2 * 127 * (min(1 << bits, 1 << 7) - 1))  # quads whose pairs 16 bits can add
    ones = emit.accumulators(1, "int16", 2 * LANES)[0]
    emit.put(ones, emit.spread(T.int16(1), 2 * LANES))
    dots = emit.accumulators(len(start), "int32", LANES)
    for dot, value in zip(dots, start, strict=True):
        emit.put(dot, value)
    for first in range(0, emit.QUADS, run):
        pairs: dict[tuple[int, int], Expr] = {}
        for number in range(first, min(first + run, emit.QUADS)):
            codes = T.bind(emit.quad(words, bits, number, LANES))
            for part in parts:
                some = codes if part == 0xFF else T.bitwise_and(codes, emit.word(part * 0x01010101, LANES))
                some = T.bind(T.reinterpret("int8x32", some))
                for row, four in enumerate(fours):
                    spread = T.reinterpret("int8x32", emit.spread(four[number], LANES))
                    pair = T.bind(emit.llvm(PAIRS, "int16x16", some, spread))
                    pairs[row, part] = pairs[row, part] + pair if (row, part) in pairs else pair
        for (row, _), pair in pairs.items():
            emit.add(dots[row], emit.llvm(WIDEN, "int32x8", pair, emit.get(ones)))
    return [emit.get(dot) for dot in dots]
