"""Where channels can get scales: groups of them, and values that a multiplication could scale for some readers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from qcc.ir.axes.axes import Action, Axes, Group, Member
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Weight
from qcc.passes.channels.readers import is_linear
from qcc.passes.contract.contract import Site

TIED = "its weight is also read otherwise, or with another input"
UNEVEN = "its scales would differ from row to row"
ADVICE = "; `insert = true` multiplies in front of the layers"


@dataclass(frozen=True)
class ScalePlace:
    """Channels that may get scales: those of a group, or those of a value in front of some readers.

    Args:
        subject: names it among the pass's sites.
        layers: the targets that read the channels.
        size: how many channels there are, contexts multiplied out.
        group: the group; None for a value.
        value: the value; empty for a group.
        refused: why nothing can be done; empty where it can.
    """

    subject: str
    layers: tuple[str, ...]
    size: int
    group: Group | None = None
    value: str = ""
    refused: str = ""

    @property
    def site(self) -> Site:
        """As a pass tells of it."""
        return Site(self.subject, self.layers, self.refused)


def places_of(
    graph: Graph, axes: Axes, targets: Sequence[str], insert: bool, convolutions: bool = False
) -> list[ScalePlace]:
    """The free groups that targets read; then, by the value that they read, the targets that read none.

    Linear layers count, and where that is asked for ``convolutions``, in front of which nothing is inserted.
    """
    chosen = set(targets)
    kinds = (Kind.LINEAR, Kind.CONV) if convolutions else (Kind.LINEAR,)
    weights = {one.name: one for one in graph.weights() if one.name in chosen and _multiplies(one, kinds)}
    covered = {name: np.zeros(weight.shape[1], bool) for name, weight in weights.items()}
    reasons: dict[str, str] = {}
    places = []
    for group in axes.groups(Action.SCALE):
        layers = tuple(dict.fromkeys(one.weight for one in group.constants if reads(one) and one.weight in weights))
        channels = {} if group.fixed else {name: columns_of(axes, group, weights[name]) for name in layers}
        reason = group.fixed or (UNEVEN if any(one is None for one in channels.values()) else "")
        if reason:
            reasons |= {name: reason for name in layers if name not in reasons}
        elif layers:
            for name, found in channels.items():
                covered[name] |= found is not None and found >= 0
            places.append(ScalePlace(group.name, layers, group.size * prod(group.contexts), group))
    left = [weight for weight in weights.values() if not covered[weight.name].all()]
    return [*places, *_values(left, reasons, insert, {place.subject for place in places})]


def reads(member: Member) -> bool:
    """The channels are inputs of a weight."""
    return member.side == "in" and member.exponent < 0


def columns_of(axes: Axes, group: Group, weight: Weight) -> Array | None:
    """The channel that each column of a weight reads ``[in]``, contexts multiplied out; -1 where it reads none.

    None if that is not the same for all rows.
    """
    return _channels(axes, group, weight, [one for one in group.constants if reads(one) and one.weight == weight.name])


def channels_of(axes: Axes, group: Group, weight: Weight, member: Member) -> Array | None:
    """The channel of each row of a weight ``[out]``, or of each column ``[in]``, as the member's side is."""
    return _channels(axes, group, weight, [member])


def _channels(axes: Axes, group: Group, weight: Weight, members: Sequence[Member]) -> Array | None:
    constant = axes.graph.constant(weight.constant)
    assert constant is not None
    along = 0 if members[0].side == "out" else 1
    counted = np.arange(weight.shape[along], dtype=np.int32).reshape((-1, 1) if along == 0 else (1, -1))
    numbers = weight.view.array(np.broadcast_to(counted, weight.shape)).reshape(constant.shape)
    found = np.full(weight.shape[along], -1)
    for member in members:
        laid = axes.arrangement(member, group).take(numbers).reshape(group.size * prod(group.contexts), -1)
        channels = np.arange(len(laid))[:, None]
        found[laid] = channels
        if (found[laid] != channels).any():
            return None
    return found


def _values(left: Sequence[Weight], reasons: Mapping[str, str], insert: bool, taken: set[str]) -> Iterator[ScalePlace]:
    """One place for each value that some weights read."""
    by_value: dict[tuple[str, bool], list[Weight]] = {}
    for weight in left:
        by_value.setdefault((weight.layers[0].input, is_linear(weight)), []).append(weight)
    for (value, alone), readers in by_value.items():
        layers = tuple(weight.name for weight in readers)
        reason = next((reasons[name] for name in layers if name in reasons), "nothing in front can take scales up")
        refused = f"{reason}; {TIED}" if not alone else "" if insert else reason + ADVICE
        subject = f"inputs of {layers[0]}"
        while subject in taken:
            subject += " again"
        taken.add(subject)
        yield ScalePlace(subject, layers, readers[0].shape[1], None, value, refused)


def _multiplies(weight: Weight, kinds: Sequence[Kind]) -> bool:
    free = (layer.kind for layer in weight.layers if layer.input and (layer.form_free or layer.kind is Kind.CONV))
    return any(kind in kinds for kind in free)
