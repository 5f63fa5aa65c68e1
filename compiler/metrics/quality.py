"""What fine detail loses: noise over signal of what is left beside means over neighbours."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from qcc.compiler.metrics.content import means
from qcc.compiler.metrics.metric import ANY, Additive, Limits, Pair


class Quality(Additive):
    """Predicted noise power over signal power of fine detail: of what is left beside the means of `content`."""

    rank: ClassVar[int] = 31
    units: ClassVar[Mapping[str, Limits]] = {"": ANY, "%": ANY}

    def noise(self, value: float) -> float:
        """A power itself."""
        return value

    def powers(self, wanted: np.ndarray, got: np.ndarray) -> Pair:
        """Squares of the distances from the means."""
        return _squares(got - wanted), _squares(wanted)


def _squares(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = (values - means(values)) ** 2
    return found
