"""Scales searched against the encoding that the weights will get."""

from collections.abc import Sequence
from dataclasses import dataclass

from qcc.passes.contract import Context
from qcc.passes.fold import Choice, Fold, Place
from qcc.passes.scale_search import Term, search

LEAST_GAIN = 0.01  # of the error; smaller ones are chance


@dataclass(frozen=True)
class Awq(Fold):
    """Scale channels up before their weights are rounded, and down again in what writes them.

    Rewrite:
        y = norm(x) * g; z = y @ W'  -->  y = norm(x) * (g / t); z = y @ (W t)'
        v = x @ V'; z = p(v) @ W'    -->  v = x @ (V / t)'; z = p(v) @ (W t)'

    Scales ``t`` are searched for all weights that read the channels together, against the narrowest format that each
    may get: first powers of the inputs' and the weights' size, then a descent on the estimated error. They are kept if
    the error of the layers' outputs on calibration data falls, on rows of the weights that the search did not see.

    A weight without calibrated inputs, or without a format, has no say. Refused where nothing before the channels takes
    a scale up: a residual stream behind a norm, a gelu or silu. A product by a gate takes it up on its linear side.

    Args:
        insert: where nothing takes the scales up, multiply by them in an op of its own in front of the layers.

    Source: AWQ, Lin et al. 2023 (arXiv:2306.00978), section 3.2 and equations 4 and 5.
    """

    insert: bool = False

    def counts(self, name: str, context: Context) -> bool:
        """It will be encoded, and its inputs are known."""
        return name in context.grams and name in context.encodings

    def choose(self, terms: Sequence[Term], place: Place) -> Choice | str:
        """By search."""
        found = search(terms, place.size)
        if not found.after < (1 - LEAST_GAIN) * found.before:
            return "no scales found"
        text = f"error {found.before:.3g} to {found.after:.3g}, scales {found.t.min():.2g} to {found.t.max():.2g}"
        return Choice(found.t, text)
