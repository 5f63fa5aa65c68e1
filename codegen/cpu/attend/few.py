"""One query meets all its keys: a lane is a channel, and sixteen sums of vectors become one of sixteen scores.

For a few queries that takes less than a vector of them does, most of which would be empty.
"""

from collections.abc import Sequence

import numpy as np
from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.cpu.attend.across import held, power_of_two
from qcc.codegen.cpu.attend.cached import ORDER, Sums
from qcc.codegen.cpu.attend.dense import LOWEST, POINTERS
from qcc.codegen.cpu.attend.sizes import BLOCK, FewSizes
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import LANES, Expr, T


def meet_one(name: str, sizes: FewSizes) -> Expr:
    """A function of the arguments of `dense.meet`, for one row; the bias, if any, is a number a key."""
    with emit.function(name) as builder:
        q, keys, values, bias, scale, room, to, _, _, count, _ = emit.arguments(
            POINTERS, ("rows", "count", "first"), unaligned="q keys values bias scale to"
        )
        top, sums, most = emit.accumulators(3)
        emit.put(top, emit.spread(T.float32(LOWEST)))
        emit.put(sums, emit.spread(T.float32(0)))
        factor = held(emit.spread(scale[0]))
        asked = [held(q[emit.lanes(T.int64(at * LANES))] * factor) for at in range(sizes.vectors)]
        with T.serial(T.int64(0), T.truncdiv(count + BLOCK - 1, T.int64(BLOCK))) as block:
            start = T.bind(block * BLOCK)
            end = T.bind(T.min(count, start + BLOCK))
            groups = T.bind(T.truncdiv(end - start + LANES - 1, T.int64(LANES)))
            emit.put(most, emit.get(top))
            with T.serial(T.int64(0), groups) as group:
                first = T.bind(start + group * LANES)
                score = _scores(sizes, keys, asked, first, count - 1)
                if sizes.op.masked:
                    score = held(score + bias[emit.lanes(first)])
                seen = emit.lanes(first) < emit.spread(end)
                score = held(T.Select(seen, score, emit.spread(T.float32(-np.inf))))
                T.buffer_store(room, score, [emit.lanes(first - start)])
                emit.put(most, T.max(emit.get(most), score))
            factor = _powers(room, groups, top, sums, most)
            share = _share(sums, end == count)
            parts = range(sizes.vectors)
            for part in parts[:: sizes.beside]:
                _add(sizes, (values, room, to), start, end, factor, share, parts[part : part + sizes.beside])
    return builder.get()


def _powers(room: Expr, groups: Expr, top: Expr, sums: Expr, most: Expr) -> Expr:
    """Powers in the place of scores; what was made before is to be multiplied by the result."""
    for distance in (8, 4, 2, 1):
        order = [T.int32((lane + distance) % LANES) for lane in range(LANES)]
        emit.put(most, T.max(emit.get(most), tirx.Shuffle([emit.get(most)], order)))
    factor = power_of_two(held(emit.get(top) - emit.get(most)))
    emit.put(top, emit.get(most))
    emit.put(sums, emit.get(sums) * factor)
    with T.serial(T.int64(0), groups) as group:
        place = emit.lanes(group * LANES)
        power = power_of_two(held(room[place] - emit.get(top)))
        T.buffer_store(room, power, [place])
        emit.add(sums, power)
    return factor


def _share(sums: Expr, last: Expr) -> Expr:
    """What the result is multiplied by: at last one over the sum of powers, where there is one."""
    total, one = held(emit.spread(emit.total(emit.get(sums)))), emit.spread(T.float32(1))
    nothing = total == emit.spread(T.float32(0))
    return held(T.Select(last, one / T.Select(nothing, one, total), one))


def _scores(sizes: FewSizes, keys: Expr, asked: Sequence[Expr], first: Expr, last: Expr) -> Expr:
    """Of sixteen keys; those behind the last are as that."""
    found = Sums()
    for lane in ORDER:
        row = T.bind(T.min(first + lane, last) * sizes.apart)
        (product,) = emit.accumulators(1)
        emit.put(product, keys[emit.lanes(row)] * asked[0])
        for at in range(1, sizes.vectors):
            emit.add(product, keys[emit.lanes(row + at * LANES)] * asked[at])
        found.add(emit.get(product))
    return held(found.total())


def _add(
    sizes: FewSizes, buffers: Sequence[Expr], start: Expr, end: Expr, factor: Expr, share: Expr, vectors: Sequence[int]
) -> None:
    """What values make of their powers, in some vectors of channels; some keys at a time, so that sums do not wait."""
    values, room, to = buffers
    sums = {(key, at): emit.accumulators(1)[0] for key in range(sizes.together) for at in vectors}
    emit.clear(list(sums.values()))

    def add(key: Expr, side: int) -> None:
        power = emit.spread(room[key - start])
        for at in vectors:
            emit.add(sums[side, at], values[emit.lanes(key * sizes.apart + at * LANES)] * power)

    whole = T.bind(T.truncdiv(end - start, T.int64(sizes.together)))
    with T.serial(T.int64(0), whole) as group:
        for side in range(sizes.together):
            add(T.bind(start + group * sizes.together + side), side)
    with T.serial(start + whole * sizes.together, end) as key:
        add(key, 0)
    for at in vectors:
        made, place = sums[0, at], emit.lanes(T.int64(at * LANES))
        for side in range(1, sizes.together):
            emit.add(made, emit.get(sums[side, at]))
        with T.If(start > 0), T.Then():
            emit.add(made, to[place] * factor)
        T.buffer_store(to, emit.get(made) * share, [place])
