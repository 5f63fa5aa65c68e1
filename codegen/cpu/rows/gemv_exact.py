"""Codes times float32 activations, to the accuracy of float32.

Where AVX-512 is, a code of up to 7 bits is decoded in a register: each plane of up to 4 bits is the index of a
``vpermps`` into a table of its values. Elsewhere, and for planes of 8 bits, by shift, mask and conversion; LLVM fits
the vectors of 16 to what the processor has. NaN and infinity act as in the float product, except that with zero points
an infinity may come out as NaN.
"""

from qcc.codegen.tir import emit
from qcc.codegen.tir.codes import REGISTER, Codes
from qcc.codegen.tir.emit import Expr, T
from qcc.ir.encoding.packing import planes

PERMUTE = "llvm.x86.avx512.permvar.sf.512"
POINTERS = {"x": "float32", "steps": "float32", "sums": "float32", "w": "int32", "scale": "float32", "offset": "int16"}
NARROW = 1  # blocks that are worked on together where registers are fewer or narrower than those of AVX-512
SCALARS = ("chunks", "chunks_a_group", "first", "count")


def gemv(name: str, codes: Codes, rows: int, wide: bool) -> Expr:
    """A function for ``rows`` rows: ``(x, unused, sums, w, scale, offset, y, chunks, chunks a group, first, count)``.

    ``sums`` are those of the chunks of ``x``, read where there are zero points. It fills ``y [rows, count * 64]`` for
    ``count`` times 64 outputs from the ``first`` 64 on. ``wide`` registers are those of AVX-512.
    """
    bits = codes.bits
    blocks, ways = emit.BLOCKS if wide else NARROW, 2 if rows == 1 else 1
    with emit.function(name) as builder:
        x, _, sums, w, scale, offset, y, chunks, per, first, count = emit.arguments(
            POINTERS | codes.stored, SCALARS, unaligned="x"
        )
        groups = T.bind(T.truncdiv(chunks, per))
        tables = _tables(codes) if wide else None
        with T.serial(T.int64(0), count * (emit.BLOCKS // blocks)) as strip:
            total = emit.accumulators(rows * blocks)
            parts = [emit.accumulators(rows * blocks) for _ in range(ways)]
            emit.clear(total)
            with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), per) as inner:
                chunk = T.bind(group * per + inner)
                at = [T.bind(first * emit.BLOCKS + strip * blocks + block) for block in range(blocks)]
                words = [emit.chunk_words(w, one * chunks + chunk, bits) for one in at]
                for part in parts:
                    emit.clear(part)
                for k in range(32):
                    for block in range(blocks):
                        value = T.bind(_value(words[block], codes, k, tables))
                        for row in range(rows):
                            part = parts[k % ways][row * blocks + block]
                            emit.add(part, value * emit.spread(x[(row * chunks + chunk) * 32 + k]))
                for block in range(blocks):
                    place = (at[block] * groups + group) * 16
                    grid = T.bind(emit.floats(scale, place))
                    for row in range(rows):
                        index = row * blocks + block
                        dot = emit.get(parts[0][index])
                        dot = dot + emit.get(parts[1][index]) if ways > 1 else dot
                        if codes.stored_zero:
                            zero = T.cast(offset[emit.lanes(place)], "float32x16") - emit.spread(
                                T.float32(codes.middle)
                            )
                            dot = dot - zero * emit.spread(sums[row * chunks + chunk])
                        emit.add(total[index], dot * grid)
            for row in range(rows):
                for block in range(blocks):
                    value = emit.get(total[row * blocks + block])
                    T.buffer_store(y, value, [emit.lanes(row * count * 64 + (strip * blocks + block) * 16)])
    return builder.get()


def _tables(codes: Codes) -> list[Expr]:
    """For each plane narrower than 8 the values of its codes, repeated to 16; the last takes the middle off."""
    if codes.table is not None:
        return [emit.floats_table(codes.register)]
    tables, shift = [], 0
    for width in planes(codes.bits):
        last = shift + width == codes.bits
        numbers = [(index & ((1 << width) - 1)) << shift for index in range(REGISTER)]
        tables.append(emit.floats_table(tuple(float(number - codes.middle * last) for number in numbers)))
        shift += width
    return tables


def _value(words: list[Expr], codes: Codes, k: int, tables: list[Expr] | None) -> Expr:
    """Input ``k`` of the chunk, decoded but for scale and zero, of 16 outputs."""
    if codes.bits == 8:
        code = T.shift_right(words[k // 4], emit.word(8 * (k % 4)))
        return T.cast(T.bitwise_and(code, emit.word(255)) - emit.word(128), "float32x16")
    value, first, shift = None, 0, 0
    for plane, width in enumerate(planes(codes.bits)):
        at, bit = emit.place(width, k // 4)
        code = T.shift_right(words[first + at], emit.word(8 * (k % 4) + bit))
        if tables is not None:
            part = emit.llvm(PERMUTE, "float32x16", tables[plane], code)
        else:
            part = T.shift_left(T.bitwise_and(code, emit.word((1 << width) - 1)), emit.word(shift))
        value = part if value is None else value + part
        first, shift = first + width, shift + width
    if tables is not None:
        return value
    return T.cast(value - emit.word(codes.middle), "float32x16")
