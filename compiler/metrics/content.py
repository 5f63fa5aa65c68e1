"""What the coarse picture loses: noise over signal of means over neighbours."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from qcc.compiler.metrics.metric import ANY, Additive, Limits, Pair

NEIGHBOURS = 8  # along the last axis


class Content(Additive):
    """Predicted noise power over signal power of the coarse picture: of means over 8 neighbours along the last axis.

    What an image shows lies in it, and `quality` in what is left; their noises add up to the output's. What is left
    over at the end of an axis that 8 does not divide is one mean more.
    """

    rank: ClassVar[int] = 30
    units: ClassVar[Mapping[str, Limits]] = {"": ANY, "%": ANY}

    def noise(self, value: float) -> float:
        """A power itself."""
        return value

    def powers(self, wanted: np.ndarray, got: np.ndarray) -> Pair:
        """Squares of the means, as often as there are neighbours."""
        return _squares(got - wanted), _squares(wanted)


def means(values: np.ndarray) -> np.ndarray:
    """Each number's mean with its neighbours, in the shape of the values."""
    rows = np.atleast_1d(values)
    starts = np.arange(0, rows.shape[-1], NEIGHBOURS)
    if not starts.size:
        return rows
    counts = np.diff(np.append(starts, rows.shape[-1]))
    return np.repeat(np.add.reduceat(rows, starts, axis=-1) / counts, counts, axis=-1)


def _squares(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = means(values) ** 2
    return found
