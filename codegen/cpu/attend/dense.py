"""Queries of a head meet all its keys: a lane is a query, so that scores of a key lie in a vector.

Keys and values are read where projections left them; largest scores and sums of powers are those of lanes, and nothing
goes across a vector but queries as they come. Values have channels in lanes, so that the result goes as it is. Keys are
met by blocks, whose scores stay in the first cache; where a larger score comes, what was made before is scaled anew
(`kernel.py` has the source).
"""

from collections.abc import Sequence

import numpy as np

from qcc.codegen.cpu.attend.across import held, power_of_two, turned
from qcc.codegen.cpu.attend.sizes import BLOCK, DenseSizes
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import LANES, Expr, T

LOWEST = float(np.finfo(np.float32).min)  # beside which what is hidden by infinity is nothing, too
POINTERS = dict.fromkeys(("q", "keys", "values", "bias", "scale", "room", "to"), "float32")


def meet(name: str, sizes: DenseSizes) -> Expr:
    """A function ``(q, keys, values, bias, scale, room, to, y, rows, count, first)``.

    ``rows`` queries, as many as there are lanes at most, meet ``count`` keys; ``to`` gets what they make, which may be
    nothing. The bias is a number a key, or ``[keys, lanes]``; it is a logarithm to base 2, as scores are by the scale.
    Of causal ones the first query sees keys up to the number ``first``, each further one sees one more.
    """
    with emit.function(name) as builder:
        q, keys, values, bias, scale, room, to, _, rows, count, first = emit.arguments(
            POINTERS, ("rows", "count", "first"), unaligned="q keys values bias scale to"
        )
        writer = _Writer(sizes, (q, keys, values, bias, room, to), rows, count, first)
        writer.take(scale)
        with T.serial(T.int64(0), T.truncdiv(count + BLOCK - 1, T.int64(BLOCK))) as block:
            writer.meet(T.bind(block * BLOCK))
    return builder.get()


class _Writer:
    """Writes what a call does, on its room: turned queries, scores, and a number a query."""

    def __init__(self, sizes: DenseSizes, buffers: Sequence[Expr], rows: Expr, count: Expr, first: Expr) -> None:
        self._sizes, self._rows, self._count, self._first = sizes, rows, count, first
        self._q, self._keys, self._values, self._bias, self._room, self._to = buffers
        self._last = T.bind(rows - 1)
        self._scores = sizes.op.channels * sizes.width
        self._factors = self._scores + BLOCK * sizes.width
        self._shares = self._factors + sizes.width
        self._top, self._sums, self._highest = (emit.accumulators(sizes.vectors) for _ in range(3))
        self._parts = emit.accumulators(sizes.vectors * sizes.together)
        self._made = emit.accumulators(sizes.beside * sizes.together)

    def take(self, scale: Expr) -> None:
        """Turn queries; lanes behind the last row are as that, and come to the same."""
        sizes, factor = self._sizes, held(emit.spread(scale[0]))
        for at in range(sizes.vectors):
            emit.put(self._top[at], emit.spread(T.float32(LOWEST)))
            emit.put(self._sums[at], emit.spread(T.float32(0)))
            with T.serial(T.int64(0), T.int64(sizes.op.channels // LANES)) as part:
                start = T.bind(part * LANES)
                places = [emit.lanes(self._row(at * LANES + lane) * sizes.apart + start) for lane in range(LANES)]
                for lane, vector in enumerate(turned([held(self._q[place] * factor) for place in places])):
                    T.buffer_store(self._room, vector, [emit.lanes((start + lane) * sizes.width + at * LANES)])

    def meet(self, start: Expr) -> None:
        """Let the queries meet a block of keys, from one on."""
        sizes, together = self._sizes, self._sizes.together
        count = T.bind(T.min(self._count - start, T.int64(BLOCK)))
        for one, top in zip(self._highest, self._top, strict=True):
            emit.put(one, emit.get(top))
        while together:
            rest = T.bind(T.truncmod(count, T.int64(2 * together)) if together < sizes.together else count)
            begin = T.bind(count - rest)
            with T.serial(T.int64(0), T.truncdiv(rest, T.int64(together))) as group:
                self._score(start, T.bind(begin + group * together), together)
            together //= 2
        factors = [power_of_two(held(emit.get(top) - emit.get(most))) for top, most in self._tops()]
        for at, factor in enumerate(factors):
            emit.put(self._sums[at], emit.get(self._sums[at]) * factor)
            emit.put(self._top[at], emit.get(self._highest[at]))
            T.buffer_store(self._room, factor, [emit.lanes(self._factors + at * LANES)])
        with T.serial(T.int64(0), count) as key:
            for at in range(sizes.vectors):
                place = emit.lanes(self._scores + key * sizes.width + at * LANES)
                power = power_of_two(held(self._room[place] - emit.get(self._top[at])))
                T.buffer_store(self._room, power, [place])
                emit.add(self._sums[at], power)
        self._share(start + count == self._count)
        parts = range(sizes.op.channels // LANES)
        with T.serial(T.int64(0), T.truncdiv(self._rows + sizes.together - 1, T.int64(sizes.together))) as group:
            for part in parts[:: sizes.beside]:
                self._add(start, count, T.bind(group * sizes.together), parts[part : part + sizes.beside])

    def _tops(self) -> list[tuple[Expr, Expr]]:
        return list(zip(self._top, self._highest, strict=True))

    def _share(self, last: Expr) -> None:
        """What results are multiplied by: at last one over the sum of powers; queries that see nothing get nought."""
        one = emit.spread(T.float32(1))
        for at, sums in enumerate(self._sums):
            nothing = emit.get(sums) == emit.spread(T.float32(0))
            share = T.Select(last, one / T.Select(nothing, one, emit.get(sums)), one)
            T.buffer_store(self._room, share, [emit.lanes(self._shares + at * LANES)])

    def _score(self, start: Expr, begin: Expr, together: int) -> None:
        """Scores of some keys."""
        sizes, parts = self._sizes, self._parts
        emit.clear(parts[: together * sizes.vectors])
        row = T.bind((start + begin) * sizes.keys_apart)
        with T.serial(T.int64(0), T.int64(sizes.op.channels)) as channel:
            asked = [T.bind(self._room[emit.lanes(channel * sizes.width + at * LANES)]) for at in range(sizes.vectors)]
            for key in range(together):
                number = emit.spread(self._keys[row + key * sizes.keys_apart + channel])
                for at in range(sizes.vectors):
                    emit.add(parts[key * sizes.vectors + at], asked[at] * number)
        for key in range(together):
            for at in range(sizes.vectors):
                score = self._seen(emit.get(parts[key * sizes.vectors + at]), start + begin + key, at)
                place = emit.lanes(self._scores + (begin + key) * sizes.width + at * LANES)
                T.buffer_store(self._room, score, [place])
                emit.put(self._highest[at], T.max(emit.get(self._highest[at]), score))

    def _seen(self, score: Expr, key: Expr, at: int) -> Expr:
        """A score with what is added to it, or hidden."""
        if self._sizes.bias == "keys":
            score = held(score + emit.spread(self._bias[key]))
        elif self._sizes.bias == "scores":
            score = held(score + self._bias[emit.lanes(key * self._sizes.width + at * LANES)])
        if self._sizes.op.causal:
            row = emit.lanes(self._first + at * LANES)
            score = held(T.Select(row < emit.spread(key), emit.spread(T.float32(-np.inf)), score))
        return score

    def _add(self, start: Expr, count: Expr, query: Expr, vectors: Sequence[int]) -> None:
        """What values make of the powers of some queries, in some vectors of channels."""
        sizes, parts = self._sizes, iter(self._made)
        sums = {(r, at): next(parts) for r in range(sizes.together) for at in vectors}
        places = {(r, at): emit.lanes(T.min(query + r, self._last) * sizes.apart + at * LANES) for r, at in sums}
        emit.clear(list(sums.values()))
        with T.If(start > 0), T.Then():
            for (r, at), one in sums.items():
                emit.put(one, self._to[places[r, at]] * emit.spread(self._room[self._factors + query + r]))
        with T.serial(T.int64(0), count) as key:
            row = T.bind((start + key) * sizes.keys_apart)
            read = {at: T.bind(self._values[emit.lanes(row + at * LANES)]) for at in vectors}
            for r in range(sizes.together):
                power = emit.spread(self._room[self._scores + key * sizes.width + query + r])
                for at in vectors:
                    emit.add(sums[r, at], read[at] * power)
        for (r, at), one in sums.items():
            share = emit.spread(self._room[self._shares + query + r])
            T.buffer_store(self._to, emit.get(one) * share, [places[r, at]])

    def _row(self, lane: int) -> Expr:
        return T.min(T.int64(lane), self._last)
