"""Keeping a share of each group of channels, chosen by weights or by data, with what makes up for the others."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import numpy as np

from qcc.ir.axes.axes import Action, Axes, Group
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Weight
from qcc.passes.contract.contract import Context, InPercent, Watch
from qcc.passes.structure.channel_fit import ChannelReader, Removals, grams_of, made_up, reading, removals
from qcc.passes.structure.division import divided, lost, work_of
from qcc.passes.structure.structure import Stays, Structure

ROUNDING = 1e-9  # of a channel, so that 75% of 24 is 18
LEAST = 0.4  # of what each group would keep, that it keeps where groups differ


@dataclass(frozen=True)
class Shares(Structure):
    """A share of each group stays; which groups these are is for others to say.

    Args:
        keep: how much of each group stays, rounded up; or of the multiplications of all.
        by: what tells how much a channel matters: `magnitude` the weights, `obs` calibration data, too.
        refit: fit layers that lose inputs anew, to calibration data.
        behind: fit all other layers behind the first of these as well.
        of: of what `keep` is a share: by `all` those groups lose most of which outputs miss least.
    """

    keep: Annotated[float, InPercent(0.01)]
    by: Literal["magnitude", "obs"] = "magnitude"
    refit: bool = False
    behind: bool = False
    of: Literal["each", "all"] = "each"

    def __post_init__(self) -> None:
        """What goes together."""
        if self.of == "all" and self.by == "magnitude":
            raise ValueError("weights do not tell what outputs miss: `of = all` takes `by = obs`")

    def uses_data(self) -> bool:
        """Of one of both."""
        return self.by != "magnitude" or self.refit

    def stays(self, axes: Axes, groups: Sequence[Group], context: Context) -> Stays:
        """Those that cost most; of equal ones the first."""
        if self.by == "magnitude" or context.watch is None:
            return {group.name: self._largest(axes, group) for group in groups}
        names = [group.name for group in groups]
        known = known_stays(context, names)
        if known is None:
            known = self._dearest(axes, groups, context.watch)
            context.found["stays", *names] = known
        return known

    def made_up(self, graph: Graph, stays: Stays, context: Context) -> Mapping[str, Array]:
        """What layers that read channels become, one after the other."""
        if not self.refit or context.watch is None:
            return {}
        key = "made up", *stays
        if key not in context.found:
            context.found[key] = self._made_up(graph, stays, context.watch, self.behind)
        return cast(Mapping[str, Array], context.found[key])

    def _made_up(self, graph: Graph, stays: Stays, watch: Watch, behind: bool) -> dict[str, Array]:
        work, axes = _masked(graph, stays), Axes.of(graph)
        found = [
            (reader, stays[group.name])
            for group in axes.groups(Action.SELECT)
            if group.name in stays
            for reader in _readers(axes, group)
        ]
        order = {op.name: at for at, op in enumerate(graph.ops())}
        found.sort(key=lambda one: order[one[0].layer.op])
        if behind and found:
            lose = {one.weight.name for one, _ in found}
            first = order[found[0][0].layer.op]
            found += [
                (one, np.ones(len(one.units), bool)) for one in _layers(graph, lose) if order[one.layer.op] > first
            ]
            found.sort(key=lambda one: order[one[0].layer.op])
        return made_up(graph, work, found, watch)

    def steps(self) -> int:
        """Of what counts are a multiple, where that leaves something to cut."""
        return 1

    def _count(self, group: Group) -> int:
        count = max(math.ceil(self.keep * group.size - ROUNDING), 1)
        whole = math.ceil(count / self.steps()) * self.steps()
        return whole if whole < group.size else count

    def _largest(self, axes: Axes, group: Group) -> Array:
        """The channels with the largest weights."""
        score = np.zeros(group.size)
        for member in group.constants:
            if member.weight:
                power = np.square(axes.read(member, group)).sum(axis=-1)
                score += power / (power.mean() or 1.0)
        stays = np.zeros(group.size, bool)
        stays[np.argsort(-np.nan_to_num(score, nan=np.inf), kind="stable")[: self._count(group)]] = True
        return stays

    def _dearest(self, axes: Axes, groups: Sequence[Group], watch: Watch) -> Stays:
        """The channels that readers miss most, where all read them as they are; else the largest."""
        readers = {group.name: _readers(axes, group) for group in groups}
        grams = grams_of(axes.graph, [one for some in readers.values() for one in some], watch)
        counts, found, going = {group.name: self._count(group) for group in groups}, {}, {}
        for group in groups:
            some, least = readers[group.name], counts[group.name]
            if not some:
                found[group.name] = self._largest(axes, group)
                continue
            least = max(math.ceil(LEAST * least), 1) if self.of == "all" else least
            going[group.name] = removals(some, [grams[one.weight.name] for one in some], axes.graph, least)
        if self.of == "all" and going:
            counts = self._divided(axes, [group for group in groups if group.name in going], going, watch)
        return found | {name: one.stays(counts[name]) for name, one in going.items()}

    def _divided(
        self, axes: Axes, groups: Sequence[Group], going: Mapping[str, Removals], watch: Watch
    ) -> dict[str, int]:
        """How many channels of each group stay, by what outputs lose."""
        weights = {group.name: list(dict.fromkeys((*group.writers, *group.readers))) for group in groups}
        work = work_of(axes.graph, weights, {group.name: group.size for group in groups}, watch)

        def losses(counts: Mapping[str, int]) -> dict[str, float]:
            found = {}
            for name, count in counts.items():
                stays = {name: going[name].stays(count)}
                fitted = self._made_up(axes.graph, stays, watch, behind=False) if self.refit else {}
                left = _masked(axes.graph, stays, fitted)
                found[name] = lost(axes.graph, left, watch)
            return found

        first = {group.name: self._count(group) for group in groups}
        return divided(going, work, self.keep, first, losses, self.steps())


def known_stays(context: Context, names: Sequence[str]) -> Stays | None:
    """What was found of these groups, alone or among others that stay whole: with those they were divided."""
    for key, found in context.found.items():
        if isinstance(key, tuple) and key[0] == "stays" and set(names) <= set(key[1:]):
            stays = cast(Stays, found)
            if all(stays[name].all() for name in key[1:] if name not in names):
                return {name: stays[name] for name in names}
    return None


def _masked(graph: Graph, stays: Stays, constants: Mapping[str, Array] | None = None) -> Graph:
    """A graph in whose old shapes channels are silent, with other constants."""
    work = graph.copy()
    for name, array in (constants or {}).items():
        work.replace_constant(name, array)
    axes = Axes.of(work)
    axes.mask({group: stays[group.name] for group in axes.groups(Action.SELECT) if group.name in stays})
    return work


def _readers(axes: Axes, group: Group) -> list[ChannelReader]:
    """The layers that read a group's channels; none if one of them reads them in some other way."""
    weights: dict[str, Weight] = {weight.name: weight for weight in axes.graph.weights()}
    uses, found = _uses(axes.graph), []
    for name in group.readers:
        places = [axes.channels(one, group) for one in group.constants if one.weight == name and one.side == "in"]
        one = reading(weights[name], places[0], uses) if len(places) == 1 else None
        if one is None:
            return []
        found.append(one)
    return found


def _layers(graph: Graph, but: Set[str]) -> list[ChannelReader]:
    """All other layers that multiply with a matrix, place by place."""
    uses = _uses(graph)
    plain = [one for one in graph.weights() if one.name not in but and len(one.layers) == 1]
    found = [
        reading(one, np.arange(one.shape[1]), uses) for one in plain if not np.prod(one.layers[0].kernel or (1,)) > 1
    ]
    return [one for one in found if one is not None]


def _uses(graph: Graph) -> Counter[str]:
    """How often each value is read."""
    return Counter(name for op in graph.ops() for name in op.inputs)
