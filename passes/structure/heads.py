"""Cutting whole heads of attention."""

from dataclasses import dataclass
from typing import ClassVar

from qcc.ir.axes.axes import Action, Axes, Group
from qcc.ir.graph.ops import Kind
from qcc.passes.structure.shares import Shares


@dataclass(frozen=True)
class Heads(Shares):
    """Keep a share of the heads of each attention, those that matter most; the others go, and shapes shrink.

    With a head go its queries, keys and values and the inputs of the output projection that read it. Where several
    heads of queries share one of keys and values they go together with it. Heads of what the model is fed or returns,
    as caches of keys and values are, stay.

    Rewrite:
        softmax(q k') v, of h heads; y = O [p, h d] z  -->  of k heads; y = O' [p, k d] z

    By ``magnitude`` a head's weight is the sum of the squares of all that goes with it, each layer counted alike. By
    ``obs`` those heads stay that the output projection would miss most, once the others make up for it as far as
    calibration data tells what they have in common. With ``refit`` it does make up for it: each output projection, one
    after the other, is fitted to what it gave before; data held out says how far weights may move.

    The loss is what the policy's ``verify`` allows. Nothing is trained afterwards.

    Args:
        keep: how many of the heads of each attention stay, rounded up, or of the multiplications of all.
        by: what tells how much a head matters: `magnitude` the weights, `obs` calibration data, too.
        refit: fit output projections that lose inputs anew, to calibration data.
        behind: with `refit`, fit all other layers behind the first of these as well.
        of: which of both `keep` is a share of. Of `all`, attentions lose most of which the model's outputs miss least:
            what they lose is measured with each cut alone.

    Source: Are sixteen heads really better than one?, Michel et al. 2019 (arXiv:1905.10650), section 2; for ``obs``
        ZipLM, Kurtic et al. 2023 (arXiv:2302.04089), section 3.1, heads as sets of columns of the output projection.
    """

    cut: ClassVar[str] = "heads"

    def concerns(self, axes: Axes, group: Group) -> bool:
        """The heads of keys and values: blocks of channels that a softmax has beside those it is over."""
        places = _places(axes)
        if not places & _held(group) or not axes.faster(group):
            return False
        others = [one for one in axes.groups(Action.SELECT) if one is not group and places & _held(one)]
        return not any(group.dims[0].root in axes.faster(one) for one in others)


def _held(group: Group) -> set[tuple[str, int]]:
    return {(one.value, one.axis) for one in group.members}


def _places(axes: Axes) -> set[tuple[str, int]]:
    """The axes of what attentions read, and softmaxes, where these do the same to each position."""
    found = set()
    for op in (op for op in axes.graph.ops() if op.kind in (Kind.SOFTMAX, Kind.ATTENTION)):
        rank = len(axes.graph.value(op.inputs[0]).shape or ())
        over = op.attributes.get("axis", -1) if op.kind is Kind.SOFTMAX else rank
        found |= {
            (op.inputs[0], axis) for axis in range(rank) if isinstance(over, int) and axis not in (over, over + rank)
        }
    return found
