"""Which channels of a graph are the same, and what may be done to them without changing the function.

`Axes.of` follows every axis of every value through all ops. Channels that must move together form a group; a group has
a place for every axis on which they lie, the constants' among them. To permute, scale or rotate a group is to do so in
all of its constants: then the function stays what it was, and a pass never looks at the ops between. To select from a
group is to leave channels out everywhere: then the function is what it would be if their weights were zero.
"""

from collections.abc import Mapping

import numpy as np

from qcc.ir.axes.arrange import Arrangement, index_of
from qcc.ir.axes.dims import Dim, faster
from qcc.ir.axes.groups import Action, Finder, Group, Member
from qcc.ir.axes.select import resized, staying, weighing_places
from qcc.ir.axes.trace import Holder, Trace
from qcc.ir.axes.walk import trace
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array

WIDE = 1 << 24  # constants of more numbers are not widened to double precision

__all__ = ["Action", "Axes", "Group", "Member"]


class Axes:
    """The axes of a graph; made by `of`."""

    def __init__(self, graph: Graph, traced: Trace) -> None:
        self.graph = graph
        self._trace = traced
        self._finder = Finder(traced)
        self._groups: dict[Action, tuple[Group, ...]] = {}
        self._own: dict[tuple[str, int], str] = {}
        self._reads = {name: len(ops) for name, ops in traced.readers.items()}

    @classmethod
    def of(cls, graph: Graph) -> "Axes":
        """Analyse a graph, visiting each op once.

        The graph must keep its ops while the result is used; what its constants hold may change.
        """
        return cls(graph, trace(graph))

    def groups(self, action: Action) -> tuple[Group, ...]:
        """The groups of an action in the order in which they run, with those that are fixed."""
        if action not in self._groups:
            self._groups[action] = self._finder.find(action)
        return self._groups[action]

    def on(self, value: str, axis: int) -> list[Group]:
        """The groups of permutable channels that make an axis of a value; none for an axis of unknown size."""
        dims = self._finder.held.get((Holder(value), axis), frozenset())
        return [group for group in self.groups(Action.PERMUTE) if group.dims[0] in dims]

    def faster(self, group: Group) -> frozenset[Dim]:
        """The plain dims that run faster than a group's channels in some place: the channels of a head, of a block."""
        found: set[Dim] = set()
        for member in group.members:
            found.update(faster(self._trace.dims[Holder(member.value, member.reader)][member.axis], group.dims[0]))
        return frozenset(found)

    def channels(self, member: Member, group: Group) -> Array:
        """For each position on a member's axis the group's channel that lies there, -1 where none does."""
        return index_of(self._trace.dims[Holder(member.value, member.reader)][member.axis], group.dims[0])

    def read(self, member: Member, group: Group) -> Array:
        """The numbers of a constant by channel: ``[*contexts, size, rest]``, in double precision."""
        return self.arrangement(member, group).take(self._array(member)).astype(np.float64, copy=False)

    def apply(self, group: Group, change: Array) -> None:
        """Do something to a group's channels, in all its constants.

        A selection changes shapes, so that the analysis holds no more: `cut` makes several at once.

        Args:
            group: one of `groups` that is not fixed.
            change: to select, ``[size]`` of bool, those that stay, one at least; to permute, ``[*contexts, size]`` of
                int, where the new channel ``i`` is the old ``change[i]``; to scale, ``[*contexts, size]``; to rotate,
                orthogonal matrices ``[*contexts, size, size]``.

        Raises:
            ValueError: the group is fixed, or the change is not of its shape.
            Refused: some op cannot have the sizes of a selection; nothing has changed.
        """
        if group.action is Action.SELECT:
            self.cut({group: change})
            return
        shape = (*group.contexts, group.size, *([group.size] if group.action is Action.ROTATE else []))
        if group.fixed or change.shape != shape:
            raise ValueError(f"`{group.name}` takes {shape}, not {change.shape}; {group.fixed or 'it is free'}")
        for member in group.constants:
            array = self._array(member)
            wide = array if group.action is Action.PERMUTE or array.size > WIDE else array.astype(np.float64)
            arrangement = self.arrangement(member, group)
            new = arrangement.put(wide, _changed(group.action, arrangement.take(wide), change, member.exponent))
            self._replace(member, new.astype(array.dtype, copy=False))

    def cut(self, kept: Mapping[Group, Array]) -> None:
        """Leave channels of several groups out, in all constants and values; the graph must be analysed anew then.

        Args:
            kept: for groups to select from, ``[size]`` of bool, those that stay, one at least.

        Raises:
            ValueError: a group is fixed or of another action, or what stays of it is not of its size.
            Refused: some op cannot have these sizes; nothing has changed.
        """
        self.graph.resize(resized(self._trace, self._checked(kept)))

    def mask(self, kept: Mapping[Group, Array]) -> None:
        """Let the weights of channels be zero and keep all shapes: what a graph computes from which they are cut.

        Args:
            kept: as for `cut`.

        Raises:
            ValueError: as `cut` does.
        """
        roots, weighing = self._checked(kept), weighing_places(self._trace)
        for group in kept:
            for member in group.constants:
                place = Holder(member.value, member.reader)
                array = self._array(member)
                if place in weighing and array.dtype.kind in "fV":
                    shape = [1] * array.ndim
                    shape[member.axis] = -1
                    stays = staying(self._trace.dims[place][member.axis], roots).reshape(shape)
                    self._replace(member, np.where(stays, array, array.dtype.type(0)))

    def _checked(self, kept: Mapping[Group, Array]) -> dict[Dim, Array]:
        """What stays by dim."""
        for group, stays in kept.items():
            if group.fixed or group.action is not Action.SELECT:
                raise ValueError(f"nothing can be cut from `{group.name}`: {group.fixed or group.action}")
            if stays.shape != (group.size,) or stays.dtype != np.bool_ or not stays.any():
                raise ValueError(f"`{group.name}` takes ({group.size},) of bool, not {stays.shape} of {stays.dtype}")
        return {group.dims[0].root: stays for group, stays in kept.items()}

    def arrangement(self, member: Member, group: Group) -> Arrangement:
        """How the constant of a member is laid out by channel."""
        dims = self._trace.dims[Holder(member.value, member.reader)]
        return Arrangement(dims, member.axis, group.dims[0], group.dims[1:])

    def _array(self, member: Member) -> Array:
        array = self.graph.constant(self._name(member))
        assert array is not None
        return array

    def _name(self, member: Member) -> str:
        """The constant that is read there now: one use may have got its own."""
        return member.value if member.reader is None else self._own.get(member.reader, member.value)

    def _replace(self, member: Member, array: Array) -> None:
        name = self._name(member)
        if member.reader is None or self._reads[name] == 1:
            self.graph.replace_constant(name, array)
            return
        self._reads[name] -= 1
        own = self.graph.set_operand(*member.reader, array)
        self._own[member.reader], self._reads[own] = own, 1


def _changed(action: Action, numbers: Array, change: Array, exponent: int) -> Array:
    """Numbers ``[*contexts, size, rest]`` after a change."""
    if action is Action.PERMUTE:
        return np.asarray(np.take_along_axis(numbers, change[..., None], axis=-2))
    change = change.astype(numbers.dtype, copy=False)
    if action is Action.SCALE:
        scale = change[..., None]
        return np.asarray(numbers * scale if exponent > 0 else numbers / scale)
    return np.asarray(change @ numbers)
