"""Which ops compute in half and which in float: a minimum cut."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

CAST_BYTES = 6  # of a number that is cast: four read and two written, or back
FLOAT_BYTES = 2  # more for a number that an op reads or makes in float
MOST = 1 << 30  # of all capacities together: the solver's are 32 bits
HALF, FLOAT = 0, 1
Edge = tuple[int, int, float]


@dataclass(frozen=True)
class Flowing:
    """The float values of a graph.

    Args:
        made: the op that makes each; what is fed has none.
        read: the ops that read each, also of what is fed.
        sizes: how many numbers each holds.
        weights: how many numbers of constants each op is stored with.
    """

    made: Mapping[str, str]
    read: Mapping[str, Collection[str]]
    sizes: Mapping[str, int]
    weights: Mapping[str, int]


def sides(values: Flowing, free: Collection[str]) -> frozenset[str]:
    """The ops that compute in half, of those that are free to: so that the fewest bytes are moved.

    A value that is made on one side and read on the other is cast once, however many read it there. What is fed and
    returned is cast in any case, and counts nothing.
    """
    if not free:
        return frozenset()
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    places = {name: at for at, name in enumerate(sorted(free), start=2)}
    edges = list(_edges(values, places))
    count = 1 + max(max(a, b) for a, b, _ in edges)
    finite = sum(size for *_, size in edges if np.isfinite(size))
    scale = min(1.0, MOST / max(finite, 1.0) / 4)
    capacity: dict[tuple[int, int], int] = {}
    for start, end, size in edges:
        wide = MOST if np.isinf(size) else max(int(size * scale), 1)
        capacity[start, end] = min(capacity.get((start, end), 0) + wide, MOST)
    rows, columns = zip(*capacity, strict=True)
    shape = count, count
    network = csr_array((np.array([*capacity.values()], np.int32), (rows, columns)), shape=shape, dtype=np.int32)
    left = network - maximum_flow(network, HALF, FLOAT).flow
    reached = _reached(left.tocsr())
    return frozenset(name for name, at in places.items() if at in reached)


def _edges(values: Flowing, places: Mapping[str, int]) -> Iterator[Edge]:
    """A cut of these has half on the side of the source; what is not free is on that of the sink."""
    moved = {op: values.weights.get(op, 0) for op in places}
    for name, size in values.sizes.items():
        for op in {values.made.get(name, ""), *values.read[name]} & moved.keys():
            moved[op] += size
    for op, at in places.items():
        yield HALF, at, FLOAT_BYTES * moved[op] + 1
    extra = 2 + len(places)
    for name, readers in values.read.items():
        maker = places.get(values.made.get(name, ""), FLOAT)
        ends = {places.get(one, FLOAT) for one in readers}
        cost = float(CAST_BYTES * values.sizes[name]) if name in values.made else 0.0
        if maker != FLOAT and ends - {maker}:
            yield maker, extra, cost
            yield from ((extra, end, float("inf")) for end in ends)
            extra += 1
        if cost and ends - {FLOAT, maker}:
            yield extra, maker, cost
            yield from ((end, extra, float("inf")) for end in ends - {FLOAT})
            extra += 1


def _reached(left: Any) -> frozenset[int]:  # noqa: ANN401 - scipy has no types
    """What can be reached from the source along edges that are not full."""
    found, todo = {HALF}, deque([HALF])
    while todo:
        at = todo.popleft()
        span = slice(left.indptr[at], left.indptr[at + 1])
        for end, room in zip(left.indices[span], left.data[span], strict=True):
            if room > 0 and int(end) not in found:
                found.add(int(end))
                todo.append(int(end))
    return frozenset(found)
