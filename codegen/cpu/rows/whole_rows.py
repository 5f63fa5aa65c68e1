"""Codes of 8 bits times rows that were rounded to int8 by one step each: integers are added up to the end.

``q = rint(x * (127 / m))`` and ``step = m / 127``, ``m`` the largest magnitude of the row, so an output is
``step * scale * (dot(codes, q) - offset * sum(q))`` with integers in the last factor. NaN or infinity in a row makes
``m`` so, and with it every output of the row NaN or infinite. A row below 1e-30 counts as zero.

There is nothing to scale between chunks, which leaves registers for four rows times four vectors of outputs: a vector
of weights is read for four products, and one of inputs for four. Without VNNI bytes are widened, first and third input
of four and second and fourth, by a mask and a shift that all rows share; ``vpmaddwd`` adds up pairs, and cannot
saturate.
"""

from collections.abc import Callable

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.cpu.rows.gemv_int8 import DOT, POINTERS, SCALARS, TINY
from qcc.codegen.tir import emit
from qcc.codegen.tir.codes import Codes
from qcc.codegen.tir.emit import Expr, T

ROWS = 4
WIDEN = "llvm.x86.avx2.pmadd.wd"
NARROW, FEW = 8, 2  # lanes of a register of AVX2, and registers that four rows meet
PAIRED = tuple(four + at for four in range(0, 16, 4) for at in (0, 2, 1, 3))
"""The order of inputs whose pairs meet every second byte of a quad."""
Places = Callable[[Expr, Expr, Expr], Callable[[Expr], Expr]]
"""Of where integers go, a row and its chunks, where each of its chunks begins."""


def in_rows(_: Expr, row: Expr, chunks: Expr) -> Callable[[Expr], Expr]:
    """Rows one behind the other."""
    return lambda chunk: (row * chunks + chunk) * 32


def round_rows(name: str, places: Places = in_rows, wide: bool = False) -> Expr:
    """A function ``(x, q, steps, sums, y, chunks, rows)``: a step and the sum of ``q`` a row; ``y`` is not touched.

    ``q`` is int8, or, ``wide``, int16 in `PAIRED` order.
    """
    kind = "int16" if wide else "int8"
    with emit.function(name) as builder:
        pointers = {"x": "float32", "q": kind, "steps": "float32", "sums": "int32"}
        x, q, steps, sums, _, chunks, rows = emit.arguments(pointers, ("chunks", "rows"), unaligned="x")
        tops, total = emit.accumulators(2, "int32"), emit.accumulators(1, "int32")[0]
        with T.serial(T.int64(0), rows) as row:
            for register in (*tops, total):
                emit.put(register, emit.word(0))
            with T.serial(T.int64(0), chunks) as chunk:
                for half, top in enumerate(tops):
                    value = x[emit.lanes((row * chunks + chunk) * 32 + half * 16)]
                    size = T.bitwise_and(T.reinterpret("int32x16", value), emit.word(0x7FFFFFFF))
                    emit.put(top, T.max(emit.get(top), size))
            top = emit.llvm("llvm.vector.reduce.smax", "int32", T.max(emit.get(tops[0]), emit.get(tops[1])))
            most = T.bind(T.reinterpret("float32", T.bind(top)))
            inverse = T.bind(T.Select(most > T.float32(TINY), T.float32(127) / most, T.float32(0)))
            T.buffer_store(steps, most * T.float32(1 / 127), [row])
            place = places(q, row, chunks)
            with T.serial(T.int64(0), chunks) as chunk:
                for half in (0, 16):
                    value = x[emit.lanes((row * chunks + chunk) * 32 + half)] * emit.spread(inverse)
                    whole = T.bind(emit.nearest(value))
                    emit.add(total, whole)
                    stored = tirx.Shuffle([whole], [T.int32(lane) for lane in PAIRED]) if wide else whole
                    T.buffer_store(q, T.cast(stored, f"{kind}x16"), [emit.lanes(place(chunk) + half)])
            T.buffer_store(sums, emit.llvm("llvm.vector.reduce.add", "int32", emit.get(total)), [row])
    return builder.get()


def product(name: str, codes: Codes) -> Expr:
    """A function for four rows, of the arguments of ``gemv_int8.gemv`` with a step and a sum a row."""
    with emit.function(name) as builder:
        q, steps, sums, w, scale, offset, y, chunks, _, first, count = emit.arguments(POINTERS, SCALARS)
        quads = T.bind(chunks * emit.QUADS)
        with T.serial(T.int64(0), count) as strip:
            dots = [emit.accumulators(emit.BLOCKS, "int32") for _ in range(ROWS)]
            for dot in (one for row in dots for one in row):
                emit.put(dot, emit.word(0))
            at = [T.bind((first + strip) * emit.BLOCKS + block) for block in range(emit.BLOCKS)]
            with T.serial(T.int64(0), quads) as quad:
                words = [w[emit.lanes((one * quads + quad) * emit.LANES)] for one in at]
                wholes = [T.bind(T.reinterpret("int8x64", word)) for word in words]
                for row in range(ROWS):
                    four = T.bind(T.reinterpret("int8x64", emit.spread(q[row * quads + quad])))
                    for dot, whole in zip(dots[row], wholes, strict=True):
                        emit.put(dot, emit.llvm(DOT, "int32x16", emit.get(dot), whole, four))
            for block, place in enumerate(at):
                grid = T.bind(scale[emit.lanes(place * emit.LANES)])
                stored = T.cast(offset[emit.lanes(place * emit.LANES)], "int32x16")
                zero = T.bind(stored) if codes.stored_zero else emit.word(codes.middle)
                for row in range(ROWS):
                    dot = emit.get(dots[row][block]) - emit.spread(sums[row]) * zero
                    value = T.cast(dot, "float32x16") * (grid * emit.spread(steps[row]))
                    T.buffer_store(y, value, [emit.lanes((row * count + strip) * 64 + block * emit.LANES)])
    return builder.get()


def product_of_pairs(name: str, codes: Codes) -> Expr:
    """The same by AVX2, of rows that were rounded to ``wide`` integers."""
    with emit.function(name) as builder:
        q, steps, sums, w, scale, offset, y, chunks, _, first, count = emit.arguments(POINTERS, SCALARS)
        quads, width = T.bind(chunks * emit.QUADS), FEW * NARROW
        with T.serial(T.int64(0), count * (64 // width)) as share:
            start = T.bind(first * 64 + share * width)
            place = T.bind(T.truncdiv(start, T.int64(emit.LANES)) * quads * emit.LANES)
            dots = [emit.accumulators(FEW, "int32", NARROW) for _ in range(ROWS)]
            for dot in (one for row in dots for one in row):
                emit.put(dot, emit.word(0, NARROW))
            with T.serial(T.int64(0), quads) as quad:
                pairs = [_pairs(w, place + quad * emit.LANES + part * NARROW) for part in range(FEW)]
                for row in range(ROWS):
                    for half in range(2):
                        two = T.bind(T.reinterpret("int16x16", emit.spread(q[(row * quads + quad) * 2 + half], NARROW)))
                        for dot, pair in zip(dots[row], pairs, strict=True):
                            emit.add(dot, emit.llvm(WIDEN, "int32x8", pair[half], two))
            for part in range(FEW):
                at = emit.lanes(start + part * NARROW, NARROW)
                grid, stored = T.bind(scale[at]), T.cast(offset[at], "int32x8")
                zero = T.bind(stored) if codes.stored_zero else emit.word(codes.middle, NARROW)
                for row in range(ROWS):
                    dot = emit.get(dots[row][part]) - emit.spread(sums[row], NARROW) * zero
                    value = T.cast(dot, "float32x8") * (grid * emit.spread(steps[row], NARROW))
                    here = row * count * 64 + share * width + part * NARROW
                    T.buffer_store(y, value, [emit.lanes(here, NARROW)])
    return builder.get()


def _pairs(w: Expr, place: Expr) -> tuple[Expr, Expr]:
    """Four inputs of 8 outputs as numbers of 16 bits: the first and third, the second and fourth."""
    words = T.bind(w[emit.lanes(place, NARROW)])
    even = T.reinterpret("int16x16", T.bitwise_and(words, emit.word(0x00FF00FF, NARROW)))
    odd = T.shift_right(T.reinterpret("uint16x16", words), T.broadcast(T.uint16(8), 16))
    return T.bind(even), T.bind(T.reinterpret("int16x16", odd))
