"""What the allocator sums: noise power over signal power."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from qcc.compiler.metrics.metric import ANY, Additive, Limits, Pair


class OutputError(Additive):
    """Predicted noise power over signal power at the outputs; of `given`, only on data that is given."""

    rank: ClassVar[int] = 10
    units: ClassVar[Mapping[str, Limits]] = {"": ANY, "%": ANY}
    title: ClassVar[str] = "output error"
    arguments: ClassVar[tuple[str, ...]] = ("given",)

    def noise(self, value: float) -> float:
        """A power itself."""
        return value

    def powers(self, wanted: np.ndarray, got: np.ndarray) -> Pair:
        """Squares of the errors, and of the values."""
        return (got - wanted) ** 2, wanted**2
