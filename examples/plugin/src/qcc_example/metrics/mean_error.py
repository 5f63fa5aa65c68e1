"""The mean error."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from qcc.compiler.metrics.metric import ANY, Compared, Judged, Limits


class MeanError(Judged):
    """Mean error over mean value at the outputs."""

    rank: ClassVar[int] = 50
    units: ClassVar[Mapping[str, Limits]] = {"": ANY, "%": ANY}
    title: ClassVar[str] = "mean error"

    def of(self, compared: Compared) -> float:
        """Over all values."""
        error = value = 0.0
        for want, have in compared.rows:
            error += float(np.abs(have - want).sum())
            value += float(np.abs(want).sum())
        return 0.0 if error == 0 else error / value if value else float("inf")

    def varying(self, compared: Compared) -> float | None:
        """The mean error, over the mean of what varies."""
        if compared.signal is None or compared.stacked is None:
            return None
        want, have = compared.stacked
        error, value = float(np.abs(have - want).sum()), float(np.abs(compared.signal[0]).sum())
        return 0.0 if error == 0 else error / value if value else float("inf")

    def changed(self, share: float) -> float:
        """The share itself."""
        return share

    def without(self, value: float, share: float) -> float:
        """What is lost is off by its whole value."""
        return value + share

    def noise(self, value: float) -> float:
        """The square."""
        return value * value
