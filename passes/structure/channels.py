"""Cutting the channels that matter least by their weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import numpy as np

from qcc.ir.axes.axes import Action, Axes, Group
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Weight
from qcc.passes.contract.contract import Context, InPercent, Watch
from qcc.passes.structure.channel_fit import grams_of, kept_by_error, made_up, readers_of
from qcc.passes.structure.structure import Stays, Structure

ROUNDING = 1e-9  # of a channel, so that 75% of 24 is 18


@dataclass(frozen=True)
class Channels(Structure):
    """Keep a share of the channels of each layer, those with the largest weights; the others go, and shapes shrink.

    Channels are cut in groups: those that are added to one another, multiplied, or read by one norm are the same
    channels, and go everywhere at once. A channel's weight is the sum of its squares in every layer that writes or
    reads it, each layer counted alike. Of heads each loses the same channels, and all heads stay. The channels of what
    the model is fed and returns stay, and so do those that a norm, a softmax or an average counts.

    Rewrite:
        h = W x [o, i]; y = V h [p, o]  -->  h = W' x [k, i]; y = V' h [p, k]

    By ``obs`` those stay that layers which read them would miss most, once the others make up for it as far as
    calibration data tells what they have in common. With ``refit`` these layers do make up for it, one after the other,
    each fitted to what it gave before; data held out says how far weights may move.

    The loss is what the policy's ``verify`` allows. Nothing is trained afterwards.

    Args:
        keep: how much of each group of channels stays, rounded up.
        by: what tells how much a channel matters: `magnitude` the weights, `obs` calibration data, too.
        refit: fit layers that lose inputs anew, to calibration data.

    Source: DepGraph: Towards Any Structural Pruning, Fang et al. 2023 (arXiv:2301.12900), section 3.3, group
        magnitudes; for ``obs`` see Optimal Brain Surgeon, Hassibi and Stork 1992, and ZipLM, Kurtic et al. 2023
        (arXiv:2302.04089), section 3.1; for ``refit`` ThiNet, Luo et al. 2017 (arXiv:1707.06342), section 3.2.
    """

    keep: Annotated[float, InPercent(0.01)]
    by: Literal["magnitude", "obs"] = "magnitude"
    refit: bool = False

    def uses_data(self) -> bool:
        """Of one of both."""
        return self.by != "magnitude" or self.refit

    def concerns(self, axes: Axes, group: Group) -> bool:
        """Of channels within blocks, such as heads, those within, not the blocks."""
        inner = axes.faster(group)
        others = [one for one in axes.groups(Action.SELECT) if not one.fixed and one.dims[0].root in inner]
        return not any(self._goes_first(axes, one, group) for one in others)

    def _goes_first(self, axes: Axes, inner: Group, group: Group) -> bool:
        """Where each is faster than the other somewhere, the larger is cut."""
        if group.dims[0].root not in axes.faster(inner):
            return True
        return (inner.size, inner.name) > (group.size, group.name)

    def stays(self, axes: Axes, groups: Sequence[Group], context: Context) -> Stays:
        """Those that cost most; of equal ones the first."""
        if self.by == "magnitude" or context.watch is None:
            return {group.name: self._largest(axes, group) for group in groups}
        key = "stays", *(group.name for group in groups)
        if key not in context.found:
            context.found[key] = self._dearest(axes, groups, context.watch)
        return cast(Stays, context.found[key])

    def made_up(self, graph: Graph, stays: Stays, context: Context) -> Mapping[str, Array]:
        """What layers that read channels become, one after the other."""
        if not self.refit or context.watch is None:
            return {}
        key = "made up", *stays
        if key not in context.found:
            work = graph.copy()
            axes, working = Axes.of(graph), Axes.of(work)
            working.mask({group: stays[group.name] for group in working.groups(Action.SELECT) if group.name in stays})
            found = [
                (reader, stays[group.name])
                for group in axes.groups(Action.SELECT)
                if group.name in stays
                for reader in readers_of(group, _by_name(graph)) or ()
            ]
            order = {op.name: at for at, op in enumerate(graph.ops())}
            found.sort(key=lambda one: order[one[0].layer.op])
            context.found[key] = made_up(graph, work, found, context.watch)
        return cast(Mapping[str, Array], context.found[key])

    def _count(self, group: Group) -> int:
        return max(math.ceil(self.keep * group.size - ROUNDING), 1)

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
        weights = _by_name(axes.graph)
        readers = {group.name: readers_of(group, weights) or [] for group in groups}
        grams = grams_of(axes.graph, [one for some in readers.values() for one in some], watch)
        found = {}
        for group in groups:
            some = readers[group.name]
            products = [grams[one.weight.name] for one in some]
            if some:
                found[group.name] = kept_by_error(some, products, axes.graph, self._count(group))
            else:
                found[group.name] = self._largest(axes, group)
        return found


def _by_name(graph: Graph) -> dict[str, Weight]:
    return {weight.name: weight for weight in graph.weights()}
