"""What the axis analysis found, as people ask for it: groups with what they join, and the sides of weights."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from qcc.ir.axes.axes import Action, Axes, Group, Member
from qcc.ir.axes.dims import Dim, Order, factors, terms
from qcc.ir.axes.trace import Holder
from qcc.ir.axes.walk import trace
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op, Weight

FREE, BLOCKS, FIXED, SINGLE = "free", "in blocks only", "fixed", "one channel"
_MOST_TERMS = 4  # of a concatenation that are spelled out
_QUOTED = re.compile(r"`([^`]+)`")


GroupsByDim = tuple[dict[Dim, list[Group]], dict[Dim, Group]]


@dataclass(frozen=True)
class WeightChannels:
    """A group of channels that are permuted together, with what else may be done to them.

    ``scale``, ``rotate`` and ``select`` are the groups of those actions on the same channels, and ``finer`` names for
    each action the group of smaller channels that includes them, where they have none of their own.
    """

    group: Group
    scale: tuple[Group, ...]
    rotate: tuple[Group, ...]
    select: tuple[Group, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    tables: tuple[str, ...]
    norms: int
    biases: int
    others: int
    finer: dict[Action, str] = field(default_factory=dict)

    @property
    def size_text(self) -> str:
        """How many channels, and in each of how many blocks."""
        return size_text(self.group)

    def of(self, action: Action) -> tuple[Group, ...]:
        """The groups of an action on the channels."""
        others = {Action.SCALE: self.scale, Action.ROTATE: self.rotate, Action.SELECT: self.select}
        return others.get(action, (self.group,))

    @property
    def weights(self) -> tuple[str, ...]:
        """The weights that have the channels."""
        return tuple(dict.fromkeys((*self.tables, *self.writers, *self.readers)))


@dataclass(frozen=True)
class Side:
    """One side of a weight's matrix: ``freedom`` is free, in blocks only, fixed with a ``reason``, or of one channel.

    ``groups`` are the groups of permutable channels that make it, and ``text`` how: ``12 x 32``, ``64 + 32``.
    """

    weight: str
    side: str
    size: int
    text: str
    groups: tuple[Group, ...]
    freedom: str
    reason: str = ""


class Survey:
    """Everything that `inspect --axes` tells of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._traced = trace(graph)
        self.axes = Axes(graph, self._traced)
        self.weights = graph.weights()
        self._windows = {(weight.constant, axis) for weight in self.weights for axis in window_axes(weight)}

    @cached_property
    def ops(self) -> dict[str, Op]:
        """The ops by name."""
        return {op.name: op for op in self.graph.ops()}

    @cached_property
    def channels(self) -> tuple[WeightChannels, ...]:
        """The groups of more than one channel that are an axis of a weight, in the order in which they run."""
        on = {action: self._by_dim(action) for action in (Action.SCALE, Action.ROTATE, Action.SELECT)}
        found = (group for group in self.axes.groups(Action.PERMUTE) if group.size > 1 and self.is_on_weight(group))
        return tuple(self._channels(group, on) for group in found)

    @cached_property
    def sides(self) -> tuple[Side, ...]:
        """Both sides of every weight."""
        return tuple(self.side(weight, side) for weight in self.weights for side in ("out", "in"))

    @cached_property
    def _leaves(self) -> dict[Dim, Group]:
        return {group.dims[0]: group for group in self.axes.groups(Action.PERMUTE)}

    def is_on_weight(self, group: Group) -> bool:
        """Some weight has the channels; windows of convolutions are none."""
        return any(member.weight and (member.value, member.axis) not in self._windows for member in group.members)

    def side(self, weight: Weight, side: str) -> Side:
        """A side of a weight's matrix."""
        rows = len(weight.view.out_axes)
        axes = weight.view.order[:rows] if side == "out" else weight.view.order[rows:]
        dims = self._traced.dims.get(Holder(weight.constant), ())
        chosen = [dims[axis] for axis in axes if axis < len(dims) and (weight.constant, axis) not in self._windows]
        return self._side(weight.name, side, chosen)

    def side_of_value(self, weight: str, side: str, value: str, axis: int) -> Side:
        """A side as a value has it: a grouped convolution's groups are on one side of its weight only."""
        dims = self._traced.dims.get(Holder(value), ())
        return self._side(weight, side, dims[axis : axis + 1])

    def _side(self, weight: str, side: str, dims: Sequence[Dim]) -> Side:
        wide = [dim for dim in dims if dim.size != 1]
        leaves = [leaf for dim in wide for leaf in dim.leaves() if leaf.size != 1]
        groups = tuple(dict.fromkeys(self._leaves[leaf] for leaf in leaves if leaf in self._leaves))
        text = " x ".join(_structure(dim, nested=len(wide) > 1) for dim in wide) or "1"
        named = weight, side, prod(dim.size or 0 for dim in wide)
        reasons = [group.fixed for group in groups if group.fixed] or [leaf.fixed for leaf in leaves if leaf.fixed]
        if len(leaves) == 1 and groups and not groups[0].fixed:
            return Side(*named, text, groups, FREE)
        if any(not group.fixed for group in groups):
            return Side(*named, text, groups, BLOCKS)
        reason = reasons[0] if reasons else "nothing is known of it"
        return Side(*named, text, groups, FIXED, reason) if leaves else Side(*named, "1", (), SINGLE)

    def _by_dim(self, action: Action) -> GroupsByDim:
        """The groups of an action by their channels, and by the blocks on which these may depend."""
        own: dict[Dim, list[Group]] = {}
        held: dict[Dim, Group] = {}
        for group in self.axes.groups(action):
            if self.is_on_weight(group):
                own.setdefault(group.dims[0], []).append(group)
                for dim in () if group.fixed else group.dims[1:]:
                    held.setdefault(dim, group)
        return own, held

    def _channels(self, group: Group, on: dict[Action, GroupsByDim]) -> WeightChannels:
        dim = group.dims[0]
        members = [one for one in group.members if (one.value, one.axis) not in self._windows]
        constants = {(one.value, one.reader) for one in members if one.constant and not one.weight}
        biases = sum(value in self._biases for value, _ in constants)
        values = {one.value for one in members if not one.weight}
        return WeightChannels(
            group,
            tuple(on[Action.SCALE][0].get(dim, ())),
            tuple(on[Action.ROTATE][0].get(dim, ())),
            tuple(on[Action.SELECT][0].get(dim, ())),
            writers=tuple(self._named(members, "out", embedding=False)),
            readers=tuple(self._named(members, "in", embedding=False)),
            tables=tuple(self._named(members, "in", embedding=True)),
            norms=len({op for value in values for op in self._norms.get(value, ())}),
            biases=biases,
            others=len(constants) - biases,
            finer={action: held[dim].name for action, (own, held) in on.items() if dim not in own and dim in held},
        )

    @cached_property
    def _biases(self) -> set[str]:
        return {layer.bias for weight in self.weights for layer in weight.layers if layer.bias}

    @cached_property
    def _norms(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for op in self.ops.values():
            if op.kind is Kind.NORM:
                found.setdefault(op.inputs[0], []).append(op.name)
        return found

    @cached_property
    def _kinds(self) -> dict[str, frozenset[str]]:
        return {weight.name: weight.kinds for weight in self.weights}

    def _named(self, members: Sequence[Member], side: str, embedding: bool) -> Iterator[str]:
        """The weights with the channels on a side: as an embedding's columns, or as a layer's."""
        for name in dict.fromkeys(one.weight for one in members if one.side == side):
            kinds = self._kinds[name]
            if "embedding" in kinds if embedding else kinds != {"embedding"}:
                yield name

    def plain(self, reason: str) -> str:
        """A reason with ops called by what they do instead of by name, so that layers give the same."""
        return _QUOTED.sub(lambda found: f"`{self._called(found[1])}`", reason)

    def _called(self, name: str) -> str:
        return self.ops[name].function if name in self.ops else name


def window_axes(weight: Weight) -> range:
    """The axes of a convolution's weight that are its window."""
    is_conv = any(layer.kind is Kind.CONV for layer in weight.layers)
    return range(2, len(weight.view.shape)) if is_conv else range(0)


def size_text(group: Group) -> str:
    """``32 in each of 12``."""
    return f"{group.size:,}" + (f" in each of {' x '.join(map(str, group.contexts))}" if group.contexts else "")


def _structure(dim: Dim, nested: bool = False) -> str:
    """How a dim is made: ``12 x 32``, ``3 x (32 + 32)``."""
    if dim.order is Order.PRODUCT:
        text = " x ".join(_structure(part, nested=True) for part in factors(dim))
    elif dim.order is Order.SUM:
        parts = terms(dim)
        shown = [_structure(part) for part in parts]
        if len(shown) > _MOST_TERMS:
            shown = [*shown[: _MOST_TERMS - 2], f"... {len(parts)} parts ...", shown[-1]]
        text = " + ".join(shown)
        return f"({text})" if nested else text
    else:
        return "?" if dim.size is None else str(dim.size)
    return text
