"""Scales that share the spread of inputs out between inputs and weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from qcc.passes.contract import Between, Context
from qcc.passes.fold import Choice, Fold, Place
from qcc.passes.scale_search import NARROWEST, WIDEST, Term, column_sizes, input_sizes

PEAK = 3  # standard deviations that stand for the largest input: only second moments are streamed
EVEN = 0.01  # scales so near 1 are left


@dataclass(frozen=True)
class Smoothquant(Fold):
    """Make channels with large inputs smaller, and the weights that read them larger.

    Rewrite:
        y = norm(x) * g; z = y @ W'  -->  y = norm(x) * (g / t); z = y @ (W t)'

    ``t = max|x|^alpha / max|w|^(1 - alpha)`` channel by channel, with three times the root mean square of the inputs
    for their largest value: only second moments are streamed. It serves formats of activations; for weights alone
    `fold = awq` is better. Refused where nothing before the channels takes a scale up.

    Args:
        alpha: how much of the spread goes into the weights; 0 leaves it all in the inputs.
        insert: where nothing takes the scales up, multiply by them in an op of its own in front of the layers.

    Source: SmoothQuant, Xiao et al. 2022 (arXiv:2211.10438), section 4, equation 4.
    """

    alpha: Annotated[float, Between(0, 1)] = 0.5
    insert: bool = False

    def counts(self, name: str, context: Context) -> bool:
        """Its inputs are known."""
        return name in context.grams

    def choose(self, terms: Sequence[Term], place: Place) -> Choice | str:
        """By formula."""
        raw = (PEAK * input_sizes(terms, place.size)) ** self.alpha / column_sizes(terms, place.size) ** (
            1 - self.alpha
        )
        t = np.clip(raw, NARROWEST, WIDEST)
        if np.abs(t - 1).max(initial=0) <= EVEN:
            return "even"
        return Choice(t, f"scales {t.min():.2g} to {t.max():.2g}")
