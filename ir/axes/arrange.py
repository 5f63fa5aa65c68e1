"""Laying out an array by the channels of one group, and back."""

from collections.abc import Sequence
from math import prod

import numpy as np

from qcc.ir.axes.dims import Dim, Order
from qcc.ir.graph.ops import Array

ABSENT = -1


def index_of(dim: Dim, channels: Dim) -> Array:
    """For each position of a dim the channel of a plain dim that lies there, or `ABSENT`: ``[size]`` of int."""
    size = dim.size or 0
    if dim.root is channels.root:
        return np.arange(size)
    if dim.order is Order.PLAIN:
        return np.full(size, ABSENT)
    if dim.order is Order.SUM:
        return np.concatenate([index_of(part, channels) for part in dim.parts])
    sizes = [part.size or 0 for part in dim.parts]
    found = np.full(sizes, ABSENT)
    for axis, part in enumerate(dim.parts):
        if channels.root in part.leaves():
            shape = [1] * len(sizes)
            shape[axis] = sizes[axis]
            found = np.broadcast_to(index_of(part, channels).reshape(shape), sizes)
    return found.reshape(-1)


def extents(dim: Dim) -> dict[Dim, tuple[int, int]]:
    """From where to where each plain dim lies on a dim: its first position and the one behind its last."""
    if dim.order is Order.PLAIN:
        return {dim.root: (0, dim.size)} if dim.size else {}
    found: dict[Dim, tuple[int, int]] = {}
    if dim.order is Order.SUM:
        before = 0
        for part in dim.parts:
            for leaf, (start, stop) in extents(part).items():
                found[leaf] = found[leaf][0] if leaf in found else before + start, before + stop
            before += part.size or 0
        return found
    for at, part in enumerate(dim.parts):
        slower, faster = (prod(one.size or 0 for one in some) for some in (dim.parts[:at], dim.parts[at + 1 :]))
        for leaf, (start, stop) in extents(part).items() if slower and faster else ():
            found[leaf] = start * faster, (slower - 1) * (part.size or 0) * faster + stop * faster
    return found


class Arrangement:
    """A layout ``[*contexts, size, rest]`` of an array.

    Args:
        dims: of the array's axes.
        axis: on which the channels lie, perhaps more than once.
        channels: the plain dim.
        contexts: plain dims, each of which lies on one axis once.
    """

    def __init__(self, dims: Sequence[Dim], axis: int, channels: Dim, contexts: Sequence[Dim]) -> None:
        self._rank, self._count = len(dims), len(contexts)
        wanted: dict[int, list[int]] = {axis: []}
        for number, context in enumerate(contexts):
            at = next(at for at in (axis, *range(len(dims))) if context.root in dims[at].leaves())
            wanted.setdefault(at, []).append(number)
        self._axes = sorted(wanted)
        self._positions: dict[int, Array] = {}
        self._shapes: dict[int, list[int]] = {}
        self._names: dict[int, list[int]] = {}  # which context each new axis is; the count of them for the channels
        for at, numbers in wanted.items():
            keys = [contexts[number] for number in numbers] + ([channels] if at == axis else [])
            names = numbers + ([self._count] if at == axis else [])
            self._positions[at], rest = _sorted([index_of(dims[at], key) for key in keys])
            self._shapes[at] = [*(key.size or 0 for key in keys), rest]
            self._names[at] = [*names, self._count + 1]

    def take(self, array: Array) -> Array:
        """An array in this layout."""
        for axis in self._axes:
            array = array.take(self._positions[axis], axis)
        split = array.reshape(self._split(array.shape))
        return split.transpose(self._transposed()).reshape(
            *(split.shape[at] for at in self._transposed()[: self._count + 1]), -1
        )

    def put(self, array: Array, arranged: Array) -> Array:
        """A copy of an array in which the channels have the numbers of an array in this layout."""
        kept = [
            len(self._positions[axis]) if axis in self._positions else array.shape[axis] for axis in range(array.ndim)
        ]
        split = self._split(kept)
        order = self._transposed()
        back = arranged.reshape([split[at] for at in order]).transpose(np.argsort(order)).reshape(kept)
        made = array.copy()
        if len(self._axes) == 1:
            (axis,) = self._axes
            made[(slice(None),) * axis + (self._positions[axis],)] = back
        else:
            made[np.ix_(*(self._positions.get(axis, np.arange(array.shape[axis])) for axis in range(array.ndim)))] = (
                back
            )
        return made

    def _split(self, shape: Sequence[int]) -> list[int]:
        return [size for axis in range(self._rank) for size in self._shapes.get(axis, [shape[axis]])]

    def _transposed(self) -> list[int]:
        """The split array's axes: contexts in their order, the channels, then the rest."""
        names = [name for axis in range(self._rank) for name in self._names.get(axis, [self._count + 1])]
        return sorted(range(len(names)), key=lambda at: names[at])


def _sorted(indices: Sequence[Array]) -> tuple[Array, int]:
    """The positions where all indices are, sorted by them, and how many positions each combination has."""
    here = np.flatnonzero(np.all([index >= 0 for index in indices], axis=0))
    order = np.lexsort([here, *(index[here] for index in reversed(indices))])
    combinations = int(np.prod([len(np.unique(index[here])) for index in indices]))
    return here[order], len(here) // max(combinations, 1)
