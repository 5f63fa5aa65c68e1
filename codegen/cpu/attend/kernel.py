"""A block of queries meets a block of keys: scores, their powers, and what these make of the values.

What was made before stays beside its largest score and its sum of powers: where a larger score comes, both are scaled
anew, so that blocks may come in any order and none is seen twice.

Source: online softmax, Milakov and Gimelshein 2018 (arXiv:1805.02867), algorithm 3; by blocks as of FlashAttention, Dao
et al. 2022 (arXiv:2205.14135).
"""

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import LANES, Expr, T
from qcc.codegen.tir.steps import TirArithmetic

POINTERS = dict.fromkeys(("q", "keys", "values", "scores", "made", "top", "sums"), "float32")
ROWS = 4  # of queries that are worked on together
HIDDEN = -3e38  # a score whose power is nought beside any other


def attend(name: str, block: int, channels: int, wide: bool) -> Expr:
    """A function ``(q, keys, values, scores, made, top, sums, y, strips, seen)``.

    ``q [4 strips, channels]``, ``keys [channels, block]``, ``values [block, channels]``; ``made`` like ``q``, ``top``
    and ``sums`` a number a row, are changed; ``scores`` is room for 4 blocks. The first row sees ``seen`` keys, each
    further one sees one more. ``wide`` registers are those of AVX-512.
    """
    together = 4 if wide else 1
    with emit.function(name) as builder:
        q, keys, values, scores, made, top, sums, _, strips, seen = emit.arguments(
            POINTERS, ("strips", "seen"), unaligned="q values made top sums"
        )
        parts = emit.accumulators(ROWS * together)
        with T.serial(T.int64(0), strips) as strip:
            row = T.bind(strip * ROWS)
            highest = emit.accumulators(ROWS)
            for one in highest:
                emit.put(one, emit.spread(T.float32(HIDDEN)))
            with T.serial(T.int64(0), T.int64(block // (LANES * together))) as part:
                first = T.bind(part * (LANES * together))
                emit.clear(parts)
                with T.serial(T.int64(0), T.int64(channels)) as c:
                    some = [T.bind(keys[emit.lanes(c * block + first + LANES * at)]) for at in range(together)]
                    for r in range(ROWS):
                        value = emit.spread(q[(row + r) * channels + c])
                        for at in range(together):
                            emit.add(parts[r * together + at], some[at] * value)
                for r in range(ROWS):
                    limit = emit.spread(seen + row + r)
                    for at in range(together):
                        start = first + LANES * at
                        score = emit.get(parts[r * together + at])
                        score = T.Select(emit.lanes(start) < limit, score, emit.spread(T.float32(HIDDEN)))
                        T.buffer_store(scores, score, [emit.lanes(r * block + start)])
                        emit.put(highest[r], T.max(emit.get(highest[r]), scores[emit.lanes(r * block + start)]))
            for r in range(ROWS):
                powers(scores, made, top, sums, highest[r], r * block, row + r, block // LANES, channels)
            with T.serial(T.int64(0), T.int64(channels // (LANES * together))) as part:
                first = T.bind(part * (LANES * together))
                for r in range(ROWS):
                    for at in range(together):
                        old = made[emit.lanes((row + r) * channels + first + LANES * at)]
                        emit.put(parts[r * together + at], old)
                with T.serial(T.int64(0), T.int64(block)) as k:
                    some = [T.bind(values[emit.lanes(k * channels + first + LANES * at)]) for at in range(together)]
                    for r in range(ROWS):
                        value = emit.spread(scores[r * block + k])
                        for at in range(together):
                            emit.add(parts[r * together + at], some[at] * value)
                for r in range(ROWS):
                    for at in range(together):
                        place = emit.lanes((row + r) * channels + first + LANES * at)
                        T.buffer_store(made, emit.get(parts[r * together + at]), [place])
    return builder.get()


def powers(
    scores: Expr, made: Expr, top: Expr, sums: Expr, highest: Expr, start: int, row: Expr, parts: Expr, channels: int
) -> None:
    """Powers in the place of a row's scores, so many vectors from a start on; what was made before is scaled."""
    read = TirArithmetic()
    (most,), (added,) = emit.accumulators(1), emit.accumulators(1)
    emit.put(most, T.max(emit.get(highest), emit.spread(top[row])))
    for distance in (8, 4, 2, 1):
        order = [T.int32((lane + distance) % LANES) for lane in range(LANES)]
        emit.put(most, T.max(emit.get(most), tirx.Shuffle([emit.get(most)], order)))
    (factor,) = emit.accumulators(1)
    emit.put(factor, read.exp(emit.spread(top[row]) - emit.get(most)))
    emit.clear([added])
    with T.serial(T.int64(0), T.int64(parts) if isinstance(parts, int) else parts) as part:
        place = emit.lanes(start + part * LANES)
        T.buffer_store(scores, read.exp(scores[place] - emit.get(most)), [place])
        emit.add(added, scores[place])
    T.buffer_store(sums, sums[row] * factor[0] + emit.total(emit.get(added)), [row])
    T.buffer_store(top, most[0], [row])
    with T.serial(T.int64(0), T.int64(channels // LANES)) as part:
        place = emit.lanes(row * channels + part * LANES)
        T.buffer_store(made, made[place] * emit.get(factor), [place])
