"""Folding gains into what has their channels: the second half of `fold_norm`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcc.ir.axes.axes import Action, Axes, Group, Member
from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Op
from qcc.ir.vocabulary.find import OPS
from qcc.passes.contract.contract import Site

OVER = ("last", "group", "instance")  # a batch norm's goes into the layer before it
LEAST = 1e-6  # of the largest gain: what a smaller one is divided by could grow out of its type
COMPUTED = 8  # ops at most by which a gain is made of constants


@dataclass(frozen=True)
class Gain:
    """A constant that multiplies channels, with the group that can take it up.

    Args:
        site: of the gain.
        op: what multiplies.
        member: the constant as a place of the group.
        group: scaled by ``scale``, which makes the gain ones.
        scale: ``[*contexts, size]``.
    """

    site: Site
    op: Op
    member: Member
    group: Group
    scale: Array


def settle_gains(graph: Graph) -> None:
    """Compute gains that are made of constants alone, such as ``1 + weight``: what reads one gets a constant.

    A table that is made of two vectors, or a vector of one number, is no gain: it would only make the file larger.
    """
    ops = graph.ops()
    makers = {op.outputs[0]: op for op in ops if len(op.outputs) == 1}
    for op in ops:
        for position in _gain_positions(op):
            name = op.inputs[position]
            if 1 < _vector_size(graph, name) <= _made_of(graph, makers, name):
                graph.set_operand(op.name, position, graph.runner([], [name])({})[name])


def gains(graph: Graph, axes: Axes, targets: Sequence[str]) -> list[Gain]:
    """The gains that scale the channels of a target; one without a group to take it up is refused.

    Gains of norms over an input's own numbers, and of any other product with a constant vector: an RMS norm may be
    written so.
    """
    ops, wanted = {op.name: op for op in graph.ops()}, set(targets)
    found: dict[tuple[str, int], Gain] = {}
    for group in axes.groups(Action.SCALE):
        layers = tuple(dict.fromkeys((*group.readers, *group.writers)))
        if not wanted.intersection(layers):
            continue
        for member in group.constants:
            if member.reader is None or member.weight or member.reader[1] not in _gain_positions(ops[member.reader[0]]):
                continue
            gain = _gain(axes, ops[member.reader[0]], member, group, layers)
            other = found.get(member.reader)
            if gain is not None and (other is None or (other.site.refused and not gain.site.refused)):
                found[member.reader] = gain
    return list(found.values())


def fold(axes: Axes, gain: Gain) -> str:
    """Let a group take up a gain; tells where it went."""
    axes.apply(gain.group, gain.scale)
    left = int(np.sum(axes.read(gain.member, gain.group)[..., 0] != 1))
    text = "gain folded into " + ", ".join(f"`{name}`" for name in gain.site.layers)
    return f"{text}; {left} channels of about zero keep theirs" if left else text


def bypass_ones(graph: Graph, names: Sequence[str]) -> None:
    """Leave out those of some products that multiply by ones, where the graph can do without."""
    ops = {op.name: op for op in graph.ops()}
    found = [(name, _passed(graph, ops[name])) for name in names]
    for name, position in found:
        if position is None:
            continue
        try:
            graph.bypass(name, position)
        except Refused:  # it casts, or makes an output that cannot leave its name: it stays, and does nothing
            continue


def _passed(graph: Graph, op: Op) -> int | None:
    """The operand that a product by ones passes on; None if it does more."""
    if op.kind is not Kind.BINARY:
        return None
    ones = next((at for at, name in enumerate(op.inputs) if _is_ones(graph.constant(name))), None)
    if ones is None:
        return None
    before, after = graph.value(op.inputs[1 - ones]), graph.value(op.outputs[0])
    return 1 - ones if before.shape == after.shape and before.shape is not None else None


def _is_ones(array: np.ndarray | None) -> bool:
    return array is not None and bool(np.all(array == 1))


def _gain(axes: Axes, op: Op, member: Member, group: Group, layers: tuple[str, ...]) -> Gain | None:
    """What can be done about a gain by one group; None where there is nothing to do."""
    array = axes.graph.constant(member.value)
    if array is None or array.size != max(array.shape, default=0) or np.all(array == 1):
        return None
    subject = f"gain {member.value} ({op.name})"
    ones = np.ones((*group.contexts, group.size))
    numbers = axes.read(member, group)
    values = numbers[..., 0]
    usable = np.abs(values) > LEAST * np.max(np.abs(values))
    if group.fixed:
        reason = group.fixed
    elif np.any(numbers != values[..., None]):
        reason = "channels that must be scaled alike have different gains"
    elif group.positive and np.any(values[usable] < 0):
        reason = "a gain is negative, and only positive scales pass"
    elif not np.any(usable) or np.all(values[usable] == 1):
        return None
    else:
        scale = np.where(usable, values if member.exponent < 0 else 1 / np.where(usable, values, 1), ones)
        reason = _rival(axes, member, group, scale)
        if not reason:
            return Gain(Site(subject, layers), op, member, group, scale)
    return Gain(Site(subject, layers, reason), op, member, group, ones)


def _rival(axes: Axes, member: Member, group: Group, scale: Array) -> str:
    """Another gain of the same channels which would not become ones as well."""
    ops = {op.name: op for op in axes.graph.ops()}
    for other in group.constants:
        if other == member or other.reader is None or other.reader[1] not in _gain_positions(ops[other.reader[0]]):
            continue
        left = axes.read(other, group) * scale[..., None] ** other.exponent
        if np.any(np.abs(left - 1) > LEAST):
            return f"`{other.value}` is another gain of the same channels"
    return ""


def _gain_positions(op: Op) -> tuple[int, ...]:
    """The operands by which an op multiplies channels."""
    known = OPS.get((op.kind, op.function))
    if known is not None and known.over in OVER and len(op.inputs) > 1:
        return (1,)
    return (0, 1) if op.kind is Kind.BINARY and op.function == "mul" and len(op.inputs) == 2 else ()


def _vector_size(graph: Graph, name: str) -> int:
    """How many numbers a value has along its one axis; 0 where it has two, or nobody knows."""
    sizes = [size if isinstance(size, int) else 0 for size in graph.value(name).shape or ()] if name else []
    return max(sizes, default=0) if math.prod(sizes) == max(sizes, default=0) else 0


def _made_of(graph: Graph, makers: dict[str, Op], name: str) -> int:
    """The numbers of the largest constant of which a few ops make a value number by number; 0 where they do not."""
    if name not in makers:
        return 0
    seen: set[str] = set()
    open_, most = [name], 0
    while open_ and len(seen) < COMPUTED:
        value = open_.pop()
        constant = graph.constant(value) if value else None
        if not value or constant is not None:
            most = max(most, 0 if constant is None else constant.size)
            continue
        op = makers.get(value)
        if op is None or op.kind not in (Kind.BINARY, Kind.ELEMENTWISE, Kind.RESHAPE):
            return 0
        seen.add(value)
        open_ += op.inputs
    return 0 if open_ else most
