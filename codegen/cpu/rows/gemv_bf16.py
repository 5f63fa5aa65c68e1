"""Few rows times weights that are bfloat16, to the accuracy of float32.

The weights are tiles of the matrix product, ``w [out / 32, in / 32, 2, 16, 16]`` int32, a pair of inputs in each word;
the first is the lower half. As float32 they cost a shift or a mask, less than reading them.
"""

from qcc.codegen.cpu.rows.gemv_exact import NARROW, POINTERS, SCALARS
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import Expr, T

PAIRS = 16  # of inputs in a chunk


def gemv(name: str, rows: int, wide: bool) -> Expr:
    """A function for ``rows`` rows: ``(x, unused, unused, w, unused, unused, y, chunks, unused, first, count)``.

    It fills ``y [rows, count * 64]`` for ``count`` times 64 outputs from the ``first`` 64 on. ``wide`` registers are
    those of AVX-512.
    """
    blocks, ways = emit.BLOCKS if wide else NARROW, 2 if rows == 1 else 1
    with emit.function(name) as builder:
        x, _, _, w, _, _, y, chunks, _, first, count = emit.arguments(POINTERS, SCALARS, unaligned="x")
        with T.serial(T.int64(0), count * (emit.BLOCKS // blocks)) as strip:
            total = emit.accumulators(rows * blocks)
            parts = [emit.accumulators(rows * blocks) for _ in range(ways)]
            emit.clear(total)
            with T.serial(T.int64(0), chunks) as chunk:
                for part in parts:
                    emit.clear(part)
                for pair in range(PAIRS):
                    for block in range(blocks):
                        at = first * emit.BLOCKS + strip * blocks + block
                        tile = (T.truncdiv(at, T.int64(2)) * chunks + chunk) * 2 + T.truncmod(at, T.int64(2))
                        word = T.bind(w[emit.lanes((tile * PAIRS + pair) * 16)])
                        halves = T.shift_left(word, emit.word(16)), T.bitwise_and(word, emit.word(0xFFFF0000))
                        for half, bits in enumerate(halves):
                            value = T.bind(T.reinterpret("float32x16", bits))
                            for row in range(rows):
                                one = emit.spread(x[(row * chunks + chunk) * 32 + pair * 2 + half])
                                emit.add(parts[half % ways][row * blocks + block], value * one)
                for part in parts:
                    for index, register in enumerate(part):
                        emit.add(total[index], emit.get(register))
            for row in range(rows):
                for block in range(blocks):
                    value = emit.get(total[row * blocks + block])
                    T.buffer_store(y, value, [emit.lanes(row * count * 64 + (strip * blocks + block) * 16)])
    return builder.get()
