"""The law by which what is lost falls with bits, fitted to a curve, and told by what it says of a point left out.

Source: Scaling laws of losses by bits (arXiv:2501.06218), of the form ``a + b x^-c``; as bits double what is lost by
rounding uniformly falls exponentially, so ``a + b 2^-cx`` is tried, too, and what foretells points left out best is
taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 5  # points, of which four fit three numbers
POWERS = np.geomspace(0.1, 20, 241)
RATES = np.geomspace(0.05, 8, 241)


@dataclass(frozen=True)
class ScalingLaw:
    """``floor + factor * shape(bits)``.

    Args:
        form: ``power`` or ``exponential``.
        floor: what is lost however many bits there are.
        factor: of what falls.
        rate: the power, or how often what is lost halves for each bit.
        errors: by how much the law of all other points is off at each point between the ends, relative.
    """

    form: str
    floor: float
    factor: float
    rate: float
    errors: tuple[float, ...] = ()

    def __call__(self, bits: float) -> float:
        """What is lost."""
        return self.floor + self.factor * float(_SHAPES[self.form][0](np.array([bits]), self.rate)[0])

    @property
    def text(self) -> str:
        """As a formula."""
        floor = f"{self.floor:.3g} + " if self.floor else ""
        fall = f"bits^-{self.rate:.3g}" if self.form == "power" else f"2^(-{self.rate:.3g} bits)"
        return f"{floor}{self.factor:.3g} {fall}"


Shape = Callable[[np.ndarray, float], np.ndarray]
_SHAPES: dict[str, tuple[Shape, np.ndarray]] = {
    "power": (lambda bits, rate: bits**-rate, POWERS),
    "exponential": (lambda bits, rate: 2.0 ** (-rate * bits), RATES),
}


def fitted(bits: Sequence[float], losses: Sequence[float]) -> ScalingLaw | None:
    """The law of a curve; None where there are too few points, or nothing is lost."""
    x, y = np.asarray(bits, np.float64), np.asarray(losses, np.float64)
    known = y > 0
    x, y = x[known], y[known]
    if len(x) < LEAST:
        return None
    best: ScalingLaw | None = None
    for form in _SHAPES:
        law = _fit(form, x, y)
        inner = range(1, len(x) - 1)
        errors = tuple(float(abs(_fit(form, np.delete(x, at), np.delete(y, at))(x[at]) / y[at] - 1)) for at in inner)
        law = ScalingLaw(form, law.floor, law.factor, law.rate, errors)
        if best is None or np.median(errors) < np.median(best.errors):
            best = law
    return best


def _fit(form: str, x: np.ndarray, y: np.ndarray) -> ScalingLaw:
    """Least relative squares over a grid of rates; neither part is below zero."""
    shape, rates = _SHAPES[form]
    best, least = ScalingLaw(form, 0.0, 0.0, 1.0), np.inf
    for rate in rates:
        falls = shape(x, float(rate))
        columns = np.stack([1 / y, falls / y], axis=1)
        floor, factor = np.linalg.lstsq(columns, np.ones(len(x)), rcond=None)[0]
        if floor < 0:
            floor, factor = 0.0, float((falls / y).sum() / np.square(falls / y).sum())
        error = float(np.square(columns @ (floor, factor) - 1).sum())
        if factor > 0 and error < least:
            best, least = ScalingLaw(form, float(floor), float(factor), float(rate)), error
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
