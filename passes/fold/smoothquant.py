"""Scales that hand outliers of the inputs over to the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.passes.contract.contract import Between, Context
from qcc.passes.fold.fold import Fold, FoldedScales
from qcc.passes.fold.places import ScalePlace
from qcc.passes.fold.search import NARROWEST, WIDEST
from qcc.passes.fold.terms import Term, column_sizes, input_sizes

PEAK = 3  # standard deviations that stand for the largest input: only second moments are streamed
STEPS = 16  # a doubling: scales are chosen among so many, since data tells no more of them


@dataclass(frozen=True)
class Smoothquant(Fold):
    """Divide large channels of the inputs, and multiply the weights that read them, until both are about as uneven.

    Rewrite:
        x [n], W [out, n]  -->  x / t, W t    with t = max|x|^alpha / max|W|^(1 - alpha)

    The division goes into what makes the channels: the rows of a linear layer and its bias, the gain of a norm. All
    layers that read the channels count together. Calibration streams second moments, not maxima: three times the root
    mean square stands for the largest input, over those tokens that are rounded: with `float_tokens = 1` the first one
    has no say. Scales are powers of the sixteenth root of two, so that last bits of sums, which are others on other
    processors, choose none. Nothing is searched, and no encoding needed; done twice, the second time changes nothing.

    Refused where nothing can take the scales up: behind an activation such as gelu, in a residual stream without a norm
    of the layers' own. With `insert` a multiplication by a vector is put there.

    Args:
        alpha: how much of the inputs' spread goes into the weights: none at 0, all at 1.
        insert: multiply at run time where nothing can take scales up; layers that read one value share one product.

    Source: SmoothQuant, Xiao et al. 2022 (arXiv:2211.10438), equation 4.
    """

    for_values: ClassVar[bool] = True

    alpha: Annotated[float, Between(0, 1)] = 0.5
    insert: bool = False

    def counts(self, name: str, context: Context) -> bool:
        """Every reader does."""
        return True

    def scales(self, terms: Sequence[Term], place: ScalePlace) -> FoldedScales | None:
        """By the formula; channels without inputs or weights keep their scale."""
        readers = [term for term in terms if term.power > 0]
        inputs, weights = input_sizes(readers, place.size), column_sizes(readers, place.size)
        used = (inputs > 0) & (weights > 0)
        ratio = (PEAK * inputs) ** self.alpha / np.where(used, weights, 1) ** (1 - self.alpha)
        t = np.where(used, np.exp2(np.rint(np.log2(np.clip(ratio, NARROWEST, WIDEST)) * STEPS) / STEPS), 1.0)
        if (t == 1).all():
            return None
        return FoldedScales(t, f"scales of {t.min():.2g} to {t.max():.2g} {'folded' if place.group else 'inserted'}")
