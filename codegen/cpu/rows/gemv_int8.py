"""Codes times activations that were rounded to int8, 32 at a time: AVX512-VNNI.

``x`` is rounded to ``q = rint(x * (127 / m))``, ``m`` the largest magnitude of its 32 neighbours, so an output is
``sum over chunks of (m / 127 * scale) * (dot(codes, q) - offset * sum(q))`` with integers in the second factor. NaN or
infinity in a chunk makes ``m`` so, and with it every output of the row NaN or infinite. A chunk below 1e-30 counts as
zero.
"""

from collections.abc import Callable, Sequence

from qcc.codegen.cpu.processors.tiling import Tiling
from qcc.codegen.tir import emit
from qcc.codegen.tir.codes import Codes
from qcc.codegen.tir.emit import Expr, T

DOT = "llvm.x86.avx512.vpdpbusd.512"
SHUFFLE = "llvm.x86.avx512.pshuf.b.512"
MOST = 255  # of a whole number: a byte without a sign
TINY = 1e-30
LOW, HIGH = -128, 127
AHEAD = 4 << 10  # bytes of codes
ROUND = 12582912.0  # 1.5 * 2**23: a small number that is added to it, and taken off again, comes back whole
POINTERS = {"q": "int32", "steps": "float32", "sums": "int32", "w": "int32", "scale": "float32", "offset": "int16"}
SCALARS = ("chunks", "chunks_a_group", "first", "count")


def rounded(parts: Sequence[Expr], steps: Expr, at: Expr) -> list[Expr]:
    """One or two vectors of a chunk as whole numbers ``int32x16``, by their largest over 127, which is stored."""
    bits = [T.bitwise_and(T.reinterpret("int32x16", part), emit.word(0x7FFFFFFF)) for part in parts]
    largest = bits[0] if len(bits) == 1 else T.max(*bits)
    top = T.bind(emit.llvm("llvm.vector.reduce.smax", "int32", largest))
    most = T.bind(T.reinterpret("float32", top))
    inverse = T.bind(T.Select(most > T.float32(TINY), T.float32(127) / most, T.float32(0)))
    T.buffer_store(steps, most * T.float32(1 / 127), [at])
    return [T.bind(emit.nearest(part * emit.spread(inverse))) for part in parts]


def clipped(x: Expr, inverse: Expr) -> Expr:
    """What is rounded by a known step, as whole numbers within the range, in float32."""
    low, high, middle = (emit.spread(T.float32(number)) for number in (LOW, HIGH, ROUND))
    value = T.bind(x * emit.spread(inverse))
    above = T.bind(T.Select(value > low, value, low))
    within = T.bind(T.Select(above < high, above, high))
    return emit.llvm("llvm.arithmetic.fence", "float32x16", within + middle) - middle  # else TVM cancels the two


def quantize(name: str) -> Expr:
    """A function ``(x, q, m / 127, sum(q), y, chunks)``; ``y`` is not touched."""
    with emit.function(name) as builder:
        pointers = {"x": "float32", "q": "int8", "steps": "float32", "sums": "int32"}
        x, q, steps, sums, _, chunks = emit.arguments(pointers, ("chunks",), unaligned="x")
        with T.serial(T.int64(0), chunks) as chunk:
            halves = [T.bind(x[emit.lanes(chunk * 32 + half)]) for half in (0, 16)]
            narrow = [T.bind(T.cast(whole, "int8x16")) for whole in rounded(halves, steps, chunk)]
            for index, part in enumerate(narrow):
                T.buffer_store(q, part, [emit.lanes(chunk * 32 + 16 * index)])
            total = T.cast(narrow[0], "int32x16") + T.cast(narrow[1], "int32x16")
            T.buffer_store(sums, emit.llvm("llvm.vector.reduce.add", "int32", total), [chunk])
    return builder.get()


def gemv(name: str, codes: Codes, rows: int, static: bool = False, vectors: int = Tiling.vectors) -> Expr:
    """A function for ``rows`` rows: ``(q, steps, sums, w, scale, offset, y, chunks, chunks a group, first, count)``.

    Several rows meet so many ``vectors`` of outputs at once, one row one. It fills
    ``y [rows, count * 64]`` for ``count`` times 64 outputs from the ``first`` 64 on. With ``static`` activations all
    steps are one and there is one group: integers are added up to the end.
    """
    blocks = 1 if rows == 1 else vectors  # what lies beyond the caches is read fastest as one stream
    bits, terms = codes.bits, codes.terms(MOST)
    halved = bits <= 4 and codes.table is None and not static
    weights = [term.weight for term in terms.parts]
    unit = 1 / 16 if halved else terms.factor
    with emit.function(name) as builder:
        q, steps, sums, w, scale, offset, y, chunks, per, first, count = emit.arguments(
            POINTERS | codes.stored, SCALARS
        )
        groups = T.bind(T.truncdiv(chunks, per))
        with T.serial(T.int64(0), count * (emit.BLOCKS // blocks)) as part:
            total = emit.accumulators(rows * blocks)
            sides = [emit.accumulators(rows * blocks, "int32") for _ in terms.parts]
            dots = sides[-1]  # of the term that counts once, which starts with what is not zero
            emit.clear(total)
            if static:
                for dot in dots:
                    emit.put(dot, emit.word(0))
            with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), per) as inner:
                chunk = T.bind(group * per + inner)
                at = [T.bind(first * emit.BLOCKS + part * blocks + block) for block in range(blocks)]
                words = [emit.chunk_words(w, one * chunks + chunk, bits) for one in at]
                if rows == 1 and halved:
                    _fetch_ahead(w, (at[0] * chunks + chunk) * bits * emit.LANES, bits)
                    emit.fetch(scale[(at[0] * groups + group) * emit.LANES + AHEAD // (4 * bits)])
                for row in range(rows):
                    total_q = sums[row * chunks + chunk]
                    for block in range(blocks):
                        if not codes.stored_zero:
                            start = emit.spread(total_q * T.int32(-terms.zero))
                        else:
                            zero = T.cast(offset[emit.lanes((at[block] * groups + group) * 16)], "int32x16")
                            start = emit.spread(T.int32(0) - total_q) * zero
                        dot = dots[row * blocks + block]
                        emit.put(dot, emit.get(dot) + start if static else start)
                        for side in sides[:-1]:
                            emit.put(side[row * blocks + block], emit.word(0))
                quad_of = lambda row, number: q[(row * chunks + chunk) * 8 + number]  # noqa: E731
                _multiply(sides, words, codes, halved, quad_of)
                for side, weight in zip(sides[:-1], weights, strict=False):
                    for dot, more in zip(dots, side, strict=True):
                        emit.add(dot, T.shift_left(emit.get(more), emit.word(weight.bit_length() - 1)))
                for block in range(0 if static else blocks):
                    grid = T.bind(emit.floats(scale, (at[block] * groups + group) * 16))
                    for row in range(rows):
                        index = row * blocks + block
                        factor = grid * emit.spread(steps[row * chunks + chunk])
                        emit.add(total[index], T.cast(emit.get(dots[index]), "float32x16") * factor)
            for row in range(rows):
                for block in range(blocks):
                    value = emit.get(total[row * blocks + block])
                    if static:
                        place = first * emit.BLOCKS + part * blocks + block
                        grid = emit.floats(scale, place * 16) * emit.spread(steps[0])
                        value = T.cast(emit.get(dots[row * blocks + block]), "float32x16") * grid
                    value = value if unit == 1 else value * emit.spread(T.float32(unit))
                    T.buffer_store(y, value, [emit.lanes(row * count * 64 + (part * blocks + block) * 16)])
    return builder.get()


def _fetch_ahead(w: Expr, start: Expr, lines: int) -> None:
    """The codes that come next.

    Codes of few bits take longer to multiply than to read, and with so many instructions under way a processor does not
    look as far ahead as memory is away.
    """
    for line in range(lines):
        emit.fetch(w[start + AHEAD // 4 + line * emit.LANES])


def _multiply(
    sides: list[list[Expr]], words: list[list[Expr]], codes: Codes, halved: bool, quad_of: Callable[[int, int], Expr]
) -> None:
    """Add the products of a chunk, words ``[blocks][bits]``, to a term's ``dots [rows * blocks]`` each.

    A table is looked up by ``vpshufb``, in every quarter of a register. Codes that are ``halved`` are masked where they
    lie in a byte: the dot, also what was in it, comes out 16 times.
    """
    blocks, bits, terms = len(words), codes.bits, codes.terms(MOST).parts
    pairs = [[T.bind(emit.halves(one, bits, number)) for number in range(4)] if halved else [] for one in words]
    for number in range(emit.QUADS):
        if halved and number == 4:
            for dot in sides[0]:
                emit.put(dot, T.shift_left(emit.get(dot), emit.word(4)))
        for block in range(blocks):
            if halved:
                mask = ((1 << bits) - 1) * (0x01010101 if number < 4 else 0x10101010)
                quad = T.bitwise_and(pairs[block][number % 4], emit.word(mask))
            else:
                quad = emit.quad(words[block], bits, number)
            quad = T.bind(T.reinterpret("int8x64", quad))
            for term, dots in zip(terms, sides, strict=True):
                table = None if term.table is None else emit.bytes_table(term.table)
                whole = quad if table is None else T.bind(emit.llvm(SHUFFLE, "int8x64", table, quad))
                for row in range(len(dots) // blocks):
                    four = T.reinterpret("int8x64", emit.spread(quad_of(row, number)))
                    dot = dots[row * blocks + block]
                    emit.put(dot, emit.llvm(DOT, "int32x16", emit.get(dot), whole, four))
