"""Scales searched against the encoding that the weights will get."""

from collections.abc import Sequence
from dataclasses import dataclass

from qcc.passes.contract.contract import Context
from qcc.passes.fold.fold import Fold, FoldedScales
from qcc.passes.fold.places import ScalePlace
from qcc.passes.fold.search import search
from qcc.passes.fold.terms import Term

LEAST_GAIN = 0.01  # of the error: less is chance
LEAST_INSERT_GAIN = 0.05  # less is not worth an op more at run time


@dataclass(frozen=True)
class Awq(Fold):
    """Scale channels so that the layers that read them lose least by the very encoding that their weights will get.

    Rewrite:
        x [n], W [out, n]  -->  x / t, W t

    The division goes into what makes the channels: the rows of a linear layer and its bias, the gain of a norm. All
    layers that read the channels are multiplied together. First powers of the inputs' sizes over the weights' are
    tried, then an estimate of the error is followed downhill for every channel by itself. Scales are taken if rows of
    the weights that the search did not see lose less by at least 1 %, on samples that it did not see. Of what all
    inputs have in common only a tenth of the power counts: an error there is a constant. Weights that are not encoded
    have no say.

    Refused where nothing can take the scales up: behind an activation such as gelu, in a residual stream without a norm
    of the layers' own. With `insert` a multiplication by a vector is put there, if it saves 5 % of the error. Needs
    calibration data that is like what the model will see.

    Args:
        insert: multiply at run time where nothing can take scales up; layers that read one value share one product.

    Source: AWQ, Lin et al. 2023 (arXiv:2306.00978), section 3.2 and equations 4 and 5; the descent is ours.
    """

    insert: bool = False

    def counts(self, name: str, context: Context) -> bool:
        """It will be encoded, with scales: without, it is as fine at any size."""
        encoding = context.blocked(name)
        return encoding is not None and encoding.scale is not None

    def scales(self, terms: Sequence[Term], place: ScalePlace) -> FoldedScales | None:
        """Search."""
        found = search(terms, place.size)
        gain = LEAST_GAIN if place.group is not None else LEAST_INSERT_GAIN
        if not found.after < (1 - gain) * found.before:
            return None
        how = "folded" if place.group is not None else "inserted"
        spread = f"scales of {found.t.min():.2g} to {found.t.max():.2g} {how}"
        return FoldedScales(found.t, f"{spread}, error {found.before:.2g} to {found.after:.2g}")
