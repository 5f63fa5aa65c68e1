"""Queries of a head meet all its keys: a lane is a query, so that scores of a key lie in a vector.

Keys and values are read where projections left them, number by number, each for all queries at once; largest scores and
sums of powers are those of lanes, and nothing goes across a vector but queries as they come and the result as it goes.
Keys are met by blocks, whose scores stay in the first cache; where a larger score comes, what was made before is scaled
anew (`kernel.py` has the source).
"""

from collections.abc import Iterator, Sequence

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
        writer = _Writer(sizes, (q, keys, values, bias, room), rows, first)
        writer.take(scale)
        with T.serial(T.int64(0), T.truncdiv(count + BLOCK - 1, T.int64(BLOCK))) as block:
            start = T.bind(block * BLOCK)
            writer.meet(start, T.bind(T.min(count - start, T.int64(BLOCK))))
        writer.give(to)
    return builder.get()


class _Writer:
    """Writes what a call does, on its room: turned queries, then results, then scores."""

    def __init__(self, sizes: DenseSizes, buffers: Sequence[Expr], rows: Expr, first: Expr) -> None:
        self._sizes = sizes
        self._q, self._keys, self._values, self._bias, self._room = buffers
        self._last, self._first = T.bind(rows - 1), first
        self._made, self._scores = sizes.op.channels * sizes.width, 2 * sizes.op.channels * sizes.width
        self._top, self._sums, self._highest, self._factors = (emit.accumulators(sizes.vectors) for _ in range(4))
        self._parts = emit.accumulators(sizes.vectors * sizes.together)

    def take(self, scale: Expr) -> None:
        """Turn queries; lanes behind the last row are as that, and come to the same."""
        sizes, factor = self._sizes, held(emit.spread(scale[0]))
        for at in range(sizes.vectors):
            emit.put(self._top[at], emit.spread(T.float32(LOWEST)))
            emit.put(self._sums[at], emit.spread(T.float32(0)))
        for at, start in self._blocks():
            places = [emit.lanes(self._row(at, lane) * sizes.apart + start) for lane in range(LANES)]
            for lane, vector in enumerate(turned([held(self._q[place] * factor) for place in places])):
                place = (start + lane) * sizes.width + at * LANES
                T.buffer_store(self._room, vector, [emit.lanes(place)])
                T.buffer_store(self._room, emit.spread(T.float32(0)), [emit.lanes(self._made + place)])

    def give(self, to: Expr) -> None:
        """Write results by rows; queries from which all is hidden get nought."""
        sizes, one = self._sizes, emit.spread(T.float32(1))
        for sums in self._sums:
            nothing = emit.get(sums) == emit.spread(T.float32(0))
            emit.put(sums, one / T.Select(nothing, one, emit.get(sums)))
        for at, start in self._blocks():
            places = [emit.lanes(self._made + (start + lane) * sizes.width + at * LANES) for lane in range(LANES)]
            share = emit.get(self._sums[at])
            for lane, vector in enumerate(turned([held(self._room[place] * share) for place in places])):
                T.buffer_store(to, vector, [emit.lanes(self._row(at, lane) * sizes.apart + start)])

    def meet(self, start: Expr, count: Expr) -> None:
        """Let the queries meet so many keys, a block at most."""
        sizes, together = self._sizes, self._sizes.together
        for one, top in zip(self._highest, self._top, strict=True):
            emit.put(one, emit.get(top))
        while together:
            rest = T.bind(T.truncmod(count, T.int64(2 * together)) if together < sizes.together else count)
            begin = T.bind(count - rest)
            with T.serial(T.int64(0), T.truncdiv(rest, T.int64(together))) as group:
                self._score(start, T.bind(begin + group * together), together)
            together //= 2
        for at in range(sizes.vectors):
            most = held(emit.get(self._highest[at]))
            factor = power_of_two(held(emit.get(self._top[at]) - most))
            emit.put(self._factors[at], factor)
            emit.put(self._sums[at], emit.get(self._sums[at]) * factor)
            emit.put(self._top[at], most)
        with T.serial(T.int64(0), count) as key:
            for at in range(sizes.vectors):
                place = emit.lanes(self._scores + key * sizes.width + at * LANES)
                power = power_of_two(held(self._room[place] - emit.get(self._top[at])))
                T.buffer_store(self._room, power, [place])
                emit.add(self._sums[at], power)
        with T.serial(T.int64(0), T.int64(sizes.op.channels // sizes.together)) as group:
            self._add(start, count, T.bind(group * sizes.together))

    def _score(self, start: Expr, begin: Expr, together: int) -> None:
        """Scores of some keys."""
        sizes, parts = self._sizes, self._parts
        emit.clear(parts[: together * sizes.vectors])
        row = T.bind((start + begin) * sizes.keys_apart)
        with T.serial(T.int64(0), T.int64(sizes.op.channels)) as channel:
            asked = self._vectors(channel * sizes.width)
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

    def _add(self, start: Expr, count: Expr, channel: Expr) -> None:
        """What the keys' values make of their powers, some channels of it."""
        sizes, parts = self._sizes, self._parts
        places = [
            (part, emit.lanes(self._made + (channel + part) * sizes.width + at * LANES), at)
            for part in range(sizes.together)
            for at in range(sizes.vectors)
        ]
        for part, place, at in places:
            emit.put(parts[part * sizes.vectors + at], self._room[place] * emit.get(self._factors[at]))
        with T.serial(T.int64(0), count) as key:
            powers = self._vectors(self._scores + key * sizes.width)
            row = T.bind((start + key) * sizes.keys_apart + channel)
            for part in range(sizes.together):
                number = emit.spread(self._values[row + part])
                for at in range(sizes.vectors):
                    emit.add(parts[part * sizes.vectors + at], powers[at] * number)
        for part, place, at in places:
            T.buffer_store(self._room, emit.get(parts[part * sizes.vectors + at]), [place])

    def _vectors(self, start: Expr) -> list[Expr]:
        """Of all queries, from a place of the room on."""
        return [T.bind(self._room[emit.lanes(start + at * LANES)]) for at in range(self._sizes.vectors)]

    def _row(self, at: int, lane: int) -> Expr:
        return T.min(T.int64(at * LANES + lane), self._last)

    def _blocks(self) -> Iterator[tuple[int, Expr]]:
        """Each vector of queries with the first of sixteen channels, in a loop over these."""
        for at in range(self._sizes.vectors):
            with T.serial(T.int64(0), T.int64(self._sizes.op.channels // LANES)) as part:
                yield at, T.bind(part * LANES)
