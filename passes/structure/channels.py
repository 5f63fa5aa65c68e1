"""Cutting the channels that matter least by their weights."""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from qcc.ir.axes.axes import Action, Axes, Group
from qcc.ir.graph.ops import Array
from qcc.passes.contract.contract import Share
from qcc.passes.structure.structure import Structure

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

    The loss is what the policy's ``verify`` allows. Needs no data; nothing is trained afterwards.

    Args:
        keep: how much of each group of channels stays, rounded up.

    Source: DepGraph: Towards Any Structural Pruning, Fang et al. 2023 (arXiv:2301.12900), section 3.3, group
        magnitudes.
    """

    keep: Annotated[float, Share(0.01)]

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

    def stays(self, axes: Axes, group: Group) -> Array:
        """The channels with the largest weights; of equal ones the first."""
        score = np.zeros(group.size)
        for member in group.constants:
            if member.weight:
                power = np.square(axes.read(member, group)).sum(axis=-1)
                score += power / (power.mean() or 1.0)
        count = max(math.ceil(self.keep * group.size - ROUNDING), 1)
        stays = np.zeros(group.size, bool)
        stays[np.argsort(-np.nan_to_num(score, nan=np.inf), kind="stable")[:count]] = True
        return stays
