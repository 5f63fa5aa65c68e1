"""How the numbers of a weight lie, before and after it was stored."""

from dataclasses import dataclass

import numpy as np

BINS = 64
COUNTED = 1 << 16  # numbers of a weight that are looked at, at most
BEYOND = 0.001  # the share of numbers that may lie beyond either end, so that one outlier hides not all others


@dataclass(frozen=True)
class Spread:
    """Histograms of a weight and of what is decoded in its place, over the same bins.

    Args:
        limit: the bins reach from ``-limit`` to ``limit``; what lies beyond counts in the last on its side.
        before: the share of the numbers in each bin.
        after: the same, of what is decoded.
    """

    limit: float
    before: tuple[float, ...]
    after: tuple[float, ...]

    @classmethod
    def of(cls, matrix: np.ndarray, left: np.ndarray) -> "Spread | None":
        """Of a matrix ``[out, in]`` and what is decoded in its place; None where there is nothing to spread.

        Of a large matrix whole rows are looked at, as far apart as need be.
        """
        step = max(-(-matrix.size // COUNTED), 1)
        was, now = (np.asarray(one[::step], np.float32).ravel() for one in (matrix, left))
        if not was.any() or not np.isfinite(was).all():
            return None
        limit = float(np.quantile(np.abs(was), 1 - BEYOND)) or float(np.abs(was).max())
        return cls(limit, *(_shares(one, limit) for one in (was, now)))


def _shares(numbers: np.ndarray, limit: float) -> tuple[float, ...]:
    counts, _ = np.histogram(np.clip(numbers, -limit, limit), BINS, (-limit, limit))
    return tuple(float(one) for one in counts / numbers.size)
