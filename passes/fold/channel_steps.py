"""Scales by which every channel of what layers read has the same range."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.passes.contract.contract import Between, Context
from qcc.passes.fold.fold import Fold, FoldedScales
from qcc.passes.fold.places import ScalePlace
from qcc.passes.fold.search import NARROWEST
from qcc.passes.fold.terms import Term


@dataclass(frozen=True)
class ChannelSteps(Fold):
    """Divide the channels of the inputs by their largest magnitudes, so that one step for all is one for each channel.

    Rewrite:
        x [n], W [out, n]  -->  x / t, W t    with t = max|x| of a channel over max|x| of all

    A product of integers has one scale for each of its sums, so steps of channels cannot stay beside it: they are moved
    into the weights, and ``activations = static`` then rounds every channel by a step of its own.
    ``activations = static(by = channel)`` asks for this pass, ``static(by = group, size = 32)`` for groups of channels
    that share a step. The division goes into what makes the channels, as in `smoothquant`, which shares the unevenness
    between inputs and weights where this one gives all of it to the weights: those of 8 bits bear it better than those
    of fewer. A channel that is below a thousandth of the largest counts as that.

    Convolutions take it where what is before them does. No multiplication is put in front of them, which would break a
    chain of integers; behind a relu with an upper bound nothing takes scales up.

    Args:
        size: neighbouring channels that share a step.
        insert: multiply at run time in front of linear layers where nothing can take scales up; layers that read one
            value share one product.

    Source: per-channel activations moved into weights, SmoothQuant, Xiao et al. 2022 (arXiv:2211.10438), section 4 and
    table 1, with all of the migration strength.
    """

    uses_gram: ClassVar[bool] = False
    uses_largest: ClassVar[bool] = True
    for_values: ClassVar[bool] = True
    convolutions: ClassVar[bool] = True

    size: Annotated[int, Between(1, 65_536)] = 1
    insert: bool = True

    def counts(self, name: str, context: Context) -> bool:
        """Every reader does."""
        return True

    def scales(self, terms: Sequence[Term], place: ScalePlace) -> FoldedScales | None:
        """Of each channel, or group of them; where nothing was seen a channel stays as it is."""
        largest = np.zeros(place.size + 1)
        for term in terms:
            if term.power > 0 and term.largest is not None:
                np.maximum.at(largest, term.channels, term.largest)
        begins = np.arange(0, place.size, self.size)
        counts = np.diff(np.append(begins, place.size))
        each = np.repeat(np.maximum.reduceat(largest[: place.size], begins), counts)
        if not each.any() or not np.isfinite(each).all():
            return None
        t = np.where(each > 0, np.maximum(each / each.max(), NARROWEST), 1.0)
        if (t == 1).all():
            return None
        return FoldedScales(t, f"steps of {t.min():.2g} to 1 {'folded' if place.group else 'inserted'}")
