"""The law by which what is lost falls with bits, fitted to a curve, and told by what it says of a point left out.

Source: Scaling laws of losses by bits (arXiv:2501.06218), of the form ``a + b x^-c``. What is lost by rounding
uniformly falls with the number of levels, exponentially in bits, and at few bits faster, since a level less is much
there: so ``a + b 2^-cx`` and ``a + b (2^x - d)^-c`` are tried, too, and what foretells points left out best is taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

LEAST = 5  # points, of which four fit three numbers
GONE = (0.5, 1.0, 1.5, 2.0)  # levels that are of no use
POWERS = np.geomspace(0.1, 20, 241)
RATES = np.geomspace(0.05, 8, 241)


@dataclass(frozen=True)
class ScalingLaw:
    """``floor + factor * shape(bits)``.

    Args:
        form: ``power``, ``exponential``, or ``levels``, of which some are gone.
        floor: what is lost however many bits there are.
        factor: of what falls.
        rate: the power, or how often what is lost halves for each bit.
        gone: of ``levels``, how many.
        most: what the points lose less than that it was fitted to.
        errors: by how much the law of all other points is off at each point between the ends, relative.
    """

    form: str
    floor: float
    factor: float
    rate: float
    gone: float = 0.0
    most: float = np.inf
    errors: tuple[float, ...] = ()

    def __call__(self, bits: float) -> float:
        """What is lost."""
        shape, _, _ = _SHAPES[self.form]
        return self.floor + self.factor * float(shape(np.array([bits]), self.rate, self.gone)[0])

    @property
    def text(self) -> str:
        """As a formula."""
        floor = f"{self.floor:.3g} + " if self.floor else ""
        falls = {
            "power": f"bits^-{self.rate:.3g}",
            "exponential": f"2^(-{self.rate:.3g} bits)",
            "levels": f"(2^bits - {self.gone:g})^-{self.rate:.3g}",
        }
        return f"{floor}{self.factor:.3g} {falls[self.form]}"


Shape = Callable[[np.ndarray, float, float], np.ndarray]
_SHAPES: dict[str, tuple[Shape, np.ndarray, tuple[float, ...]]] = {
    "power": (lambda bits, rate, _: bits**-rate, POWERS, (0.0,)),
    "exponential": (lambda bits, rate, _: 2.0 ** (-rate * bits), RATES, (0.0,)),
    "levels": (lambda bits, rate, gone: (2.0**bits - gone) ** -rate, RATES, GONE),
}


def fitted(bits: Sequence[float], losses: Sequence[float], most: float = np.inf) -> ScalingLaw | None:
    """The law of a curve, of points that lose something and less than ``most``; None where these are too few."""
    x, y = np.asarray(bits, np.float64), np.asarray(losses, np.float64)
    known = (y > 0) & (y < most)
    x, y = x[known], y[known]
    if len(x) < LEAST:
        return None
    best: ScalingLaw | None = None
    for form in _SHAPES:
        law = _fit(form, x, y)
        inner = range(1, len(x) - 1)
        errors = tuple(float(abs(_fit(form, np.delete(x, at), np.delete(y, at))(x[at]) / y[at] - 1)) for at in inner)
        law = replace(law, most=most, errors=errors)
        if best is None or np.median(errors) < np.median(best.errors):
            best = law
    return best


def _fit(form: str, x: np.ndarray, y: np.ndarray) -> ScalingLaw:
    """Least relative squares over a grid of rates; neither part is below zero."""
    shape, rates, gone = _SHAPES[form]
    best, least = ScalingLaw(form, 0.0, 0.0, 1.0), np.inf
    for lost, rate in product([one for one in gone if one < 2.0 ** x.min()], rates):
        falls = shape(x, float(rate), lost)
        columns = np.stack([1 / y, falls / y], axis=1)
        floor, factor = np.linalg.lstsq(columns, np.ones(len(x)), rcond=None)[0]
        if floor < 0:
            floor, factor = 0.0, float((falls / y).sum() / np.square(falls / y).sum())
        error = float(np.square(columns @ (floor, factor) - 1).sum())
        if factor > 0 and error < least:
            best, least = ScalingLaw(form, float(floor), float(factor), float(rate), lost), error
    return best


def knee(sizes: Sequence[float], losses: Sequence[float]) -> int | None:
    """The point behind which more bytes gain least for what they take: the farthest below the line between the ends.

    Both are seen as logarithms. None where no point lies clearly below.
    """
    if len(sizes) < 3 or min(losses) <= 0:
        return None
    x, y = (np.log(np.asarray(one, np.float64)) for one in (sizes, losses))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = (x - x[0]) / (x[-1] - x[0]), (y - y[-1]) / (y[0] - y[-1])
    below = 1 - x - y
    at = int(np.argmax(below))
    return at if below[at] > 0.05 else None
