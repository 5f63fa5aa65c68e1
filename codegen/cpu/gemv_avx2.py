"""Codes times activations that were rounded to int8, where there is AVX2 but no VNNI; else as in ``gemv_int8``.

``vpmaddubsw`` adds two products of a code and an activation in 16 bits, and saturates. It never has to: a pair is at
most ``2 * 127 * (2**bits - 1)``, which fits up to 7 bits, and several pairs where codes are small; the highest of 8
bits is multiplied apart. ``vpmaddwd`` with ones then adds the halves of a quad in 32 bits.
"""

from qcc.codegen.cpu import emit, gemv_narrow
from qcc.codegen.cpu.emit import Expr, T
from qcc.codegen.cpu.gemv_narrow import Narrow

PAIRS = "llvm.x86.avx2.pmadd.ub.sw"
WIDEN = "llvm.x86.avx2.pmadd.wd"
LANES = 8


def gemv(name: str, bits: int, symmetric: bool, rows: int, static: bool = False) -> Expr:
    """A function of the arguments of ``gemv_int8.gemv``."""
    return gemv_narrow.gemv(name, bits, symmetric, rows, static, Narrow(LANES, _zero, _inputs, _dots))


def _zero(bits: int, offset: Expr | None) -> Expr:
    return emit.word(1 << bits - 1, LANES) if offset is None else offset


def _inputs(q: Expr, at: Expr) -> list[Expr]:
    return [q[at * 8 + number] for number in range(emit.QUADS)]


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
