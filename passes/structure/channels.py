"""Cutting the channels that matter least by their weights."""

from dataclasses import dataclass
from typing import Annotated

from qcc.ir.axes.axes import Action, Axes, Group
from qcc.passes.contract.contract import Between
from qcc.passes.structure.shares import Shares


@dataclass(frozen=True)
class Channels(Shares):
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
        keep: how much of each group of channels stays, rounded up, or of the multiplications of all.
        by: what tells how much a channel matters: `magnitude` the weights, `obs` calibration data, too.
        refit: fit layers that lose inputs anew, to calibration data.
        behind: with `refit`, fit all other layers behind the first of these as well.
        of: which of both `keep` is a share of. Of `all`, groups lose most of which the model's outputs miss least:
            what they lose is measured with each group cut alone.
        multiple: of which the channels that stay are one, where that leaves something to cut: runtimes lay out
            convolutions in blocks of 8 or 16 channels, and take longer for others than they save.

    Source: DepGraph: Towards Any Structural Pruning, Fang et al. 2023 (arXiv:2301.12900), section 3.3, group
        magnitudes; for ``obs`` see Optimal Brain Surgeon, Hassibi and Stork 1992, and ZipLM, Kurtic et al. 2023
        (arXiv:2302.04089), section 3.1; for ``refit`` ThiNet, Luo et al. 2017 (arXiv:1707.06342), section 3.2.
    """

    multiple: Annotated[int, Between(1, 1024)] = 8

    def steps(self) -> int:
        """As asked."""
        return self.multiple

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
