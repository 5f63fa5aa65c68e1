"""Codes times activations that were rounded to int8, where there is AVX2 but no VNNI; else as in ``gemv_int8``.

``vpmaddubsw`` adds two products of a whole number (`CodeTerms`) and an activation in 16 bits, and saturates. It never
has to: a pair is at most ``2 * 127 * highest``, which fits up to 7 bits, and several pairs where numbers are small; 8
bits are multiplied by magnitude and sign, or in two parts where activations may be -128. ``vpmaddwd`` then adds the
halves of a quad in 32 bits, times the weight of the term. A table is looked up by ``vpshufb``, in both halves of a
register.
"""

from qcc.codegen.cpu.rows import gemv_narrow
from qcc.codegen.cpu.rows.gemv_narrow import Narrow
from qcc.codegen.tir import emit
from qcc.codegen.tir.codes import Codes, CodeTerm
from qcc.codegen.tir.emit import Expr, T

PAIRS = "llvm.x86.avx2.pmadd.ub.sw"
WIDEN = "llvm.x86.avx2.pmadd.wd"
SIGN = "llvm.x86.avx2.psign.b"
SHUFFLE = "llvm.x86.avx2.pshuf.b"
LANES = 8
BYTE, MIDDLE = 8, 128
MOST = 127  # of a whole number, so that a pair fits 16 bits
PARTS = emit.LANES // LANES  # of 8 outputs, for one row: what lies together, as one stream, is read fastest
FEW = 2  # of four rows, or two terms: with more, their sums and codes outgrow the registers


def gemv(name: str, codes: Codes, rows: int, static: bool = False) -> Expr:
    """A function of the arguments of ``gemv_int8.gemv``."""
    if codes.bits == BYTE and not static:
        parts = PARTS if rows == 1 else FEW
        signed = Narrow(LANES, parts, _zero_of_bytes, _places, _signed_dots, words=_place_of_bytes)
        return gemv_narrow.gemv(name, codes, rows, static, signed)
    terms = codes.terms(MOST)
    parts = PARTS if rows * len(terms.parts) == 1 else FEW
    narrow = Narrow(LANES, parts, _zero, _inputs, _dots, terms.factor)
    return gemv_narrow.gemv(name, codes, rows, static, narrow)


def _zero(codes: Codes, offset: Expr | None) -> Expr:
    return emit.word(codes.terms(MOST).zero, LANES) if offset is None else offset


def _zero_of_bytes(_: Codes, offset: Expr | None) -> Expr:
    return emit.word(0, LANES) if offset is None else offset - emit.word(MIDDLE, LANES)


def _places(q: Expr, at: Expr) -> tuple[Expr, Expr]:
    return q, at


def _place_of_bytes(w: Expr, number: Expr, bits: int, _: int, side: int) -> tuple[Expr, Expr]:
    return w, T.bind(number * (bits * emit.LANES) + side)


def _inputs(q: Expr, at: Expr) -> list[Expr]:
    return [q[at * 8 + number] for number in range(emit.QUADS)]


def _dots(words: list[Expr], codes: Codes, fours: list[list[Expr]], start: list[Expr]) -> list[Expr]:
    """For each row the products of a chunk of 8 outputs, added to the start."""
    terms = codes.terms(MOST).parts
    weights = {term.weight: emit.accumulators(1, "int16", 2 * LANES)[0] for term in terms}
    for weight, register in weights.items():
        emit.put(register, emit.spread(T.int16(weight), 2 * LANES))
    dots = emit.accumulators(len(start), "int32", LANES)
    for dot, value in zip(dots, start, strict=True):
        emit.put(dot, value)
    pairs: dict[tuple[int, int], Expr] = {}
    for number in range(emit.QUADS):
        quad = T.bind(emit.quad(words, codes.bits, number, LANES))
        for at, term in enumerate(terms):
            some = T.bind(_whole(quad, term))
            for row, four in enumerate(fours):
                spread = T.reinterpret("int8x32", emit.spread(four[number], LANES))
                pair = T.bind(emit.llvm(PAIRS, "int16x16", some, spread))
                pairs[row, at] = pairs[row, at] + pair if (row, at) in pairs else pair
            run = 32767 // (2 * 127 * term.highest)  # quads whose pairs 16 bits can add
            if (number + 1) % run and number + 1 < emit.QUADS:
                continue
            for row, dot in enumerate(dots):
                emit.add(dot, emit.llvm(WIDEN, "int32x8", pairs.pop((row, at)), emit.get(weights[term.weight])))
    return [emit.get(dot) for dot in dots]


def _signed_dots(words: tuple[Expr, Expr], _: Codes, fours: list[tuple[Expr, Expr]], start: list[Expr]) -> list[Expr]:
    """The same of codes of 8 bits, as numbers with a sign: magnitudes times activations that take over the sign.

    A pair is at most ``2 * 128 * 127``, which 16 bits hold: activations are never -128, since the largest of 32
    neighbours becomes 127. Quads are a loop whose end LLVM does not know: unrolled, it takes row by row, and what all
    rows share goes to the stack.
    """
    w, place = words
    ones, flip = (emit.accumulators(1, dtype, count)[0] for dtype, count in (("int16", 2 * LANES), ("int32", LANES)))
    emit.put(ones, emit.spread(T.int16(1), 2 * LANES))
    emit.put(flip, emit.word(0x80808080, LANES))
    dots = emit.accumulators(len(start), "int32", LANES)
    for dot, value in zip(dots, start, strict=True):
        emit.put(dot, value)
    quads = T.bind(T.int64(emit.QUADS) + T.shift_right(fours[0][1], T.int64(62)))
    with T.serial(T.int64(0), quads) as number:
        codes = w[emit.lanes(place + number * emit.LANES, LANES)]
        signed = T.bind(T.reinterpret("int8x32", T.bitwise_xor(codes, emit.get(flip))))
        sizes = T.bind(emit.llvm(SIGN, "int8x32", signed, signed))
        for dot, (q, at) in zip(dots, fours, strict=True):
            spread = T.reinterpret("int8x32", emit.spread(q[at * emit.QUADS + number], LANES))
            pair = emit.llvm(PAIRS, "int16x16", sizes, emit.llvm(SIGN, "int8x32", spread, signed))
            emit.add(dot, emit.llvm(WIDEN, "int32x8", pair, emit.get(ones)))
    return [emit.get(dot) for dot in dots]


def _whole(quad: Expr, term: CodeTerm) -> Expr:
    """The whole numbers of a quad's codes, as bytes."""
    if term.table is not None:
        codes = T.reinterpret("int8x32", quad)
        return emit.llvm(SHUFFLE, "int8x32", emit.bytes_table(term.table, LANES), codes)
    kept = quad if term.mask is None else T.bitwise_and(quad, emit.word(term.mask * 0x01010101, LANES))
    return T.reinterpret("int8x32", kept)
