"""The largest error."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from qcc.compiler.metrics.metric import ANY, Compared, Judged, Limits, Pair


class RelativeError(Judged):
    """Largest error over largest value at the outputs."""

    rank: ClassVar[int] = 3
    units: ClassVar[Mapping[str, Limits]] = {"": ANY, "%": ANY}
    title: ClassVar[str] = "largest relative error"
    told: ClassVar[bool] = True

    def of(self, compared: Compared) -> float:
        """Over all values."""
        return _ratio(*_largest(compared.rows))

    def varying(self, compared: Compared) -> float | None:
        """The largest error, over the largest value less its mean over the samples."""
        if compared.signal is None or compared.stacked is None:
            return None
        want, have = compared.stacked
        return _ratio(float(np.abs(have - want).max()), float(np.abs(compared.signal[0]).max()))

    def changed(self, share: float) -> float:
        """The share itself."""
        return share

    def without(self, value: float, share: float) -> float:
        """A number that is lost is off by as much as the largest."""
        del share
        return max(value, 1.0)

    def noise(self, value: float) -> float:
        """The square."""
        return value * value


def _largest(rows: Iterable[Pair]) -> tuple[float, float]:
    """The largest error, and the largest value."""
    worst = largest = 0.0
    for want, have in rows:
        largest = max(largest, float(np.abs(want).max(initial=0)))
        worst = max(worst, float(np.abs(have - want).max(initial=0)))
    return worst, largest


def _ratio(worst: float, largest: float) -> float:
    return 0.0 if worst == 0 else worst / largest if largest else float("inf")
