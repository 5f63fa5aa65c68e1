"""Signal to noise."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from qcc.compiler.metrics.metric import Compared, Judged, Limits

LARGEST_DB = 3000.0  # whose power is still a number


class Sqnr(Judged):
    """Signal over error at the outputs."""

    rank: ClassVar[int] = 2
    relation: ClassVar[Literal["<=", ">="]] = ">="
    units: ClassVar[Mapping[str, Limits]] = {"dB": (-200, 200), "": (-200, 200)}
    title: ClassVar[str] = "SQNR"
    told: ClassVar[bool] = True
    equal: ClassVar[float] = math.inf
    lost: ClassVar[float] = -math.inf

    def of(self, compared: Compared) -> float:
        """Over all values."""
        signal = noise = 0.0
        for want, have in compared.rows:
            signal += float(np.vdot(want, want))
            error = have - want
            noise += float(np.vdot(error, error))
        return _ratio(signal, noise)

    def varying(self, compared: Compared) -> float | None:
        """All of the error, over what varies."""
        if compared.signal is None or compared.stacked is None:
            return None
        error = compared.stacked[1] - compared.stacked[0]
        return _ratio(float(np.vdot(compared.signal[0], compared.signal[0])), float(np.vdot(error, error)))

    def changed(self, share: float) -> float:
        """Whole numbers have no size: they are the same, or not."""
        return 0.0 if share else math.inf

    def without(self, value: float, share: float) -> float:
        """So much more noise."""
        return float(-10 * np.log10(self.noise(value) + share))

    def reshaped(self, value: float, share: float) -> float:
        """The other batches' noise, and the lost ones' signal."""
        return min(value, float(-10 * np.log10(self.noise(value) * (1 - share) + share)))

    def noise(self, value: float) -> float:
        """Over the signal."""
        return math.inf if value < -LARGEST_DB else float(10 ** (-value / 10))

    def text(self, value: float, unit: str = "") -> str:
        """In decibels."""
        del unit
        if math.isnan(value):
            return "not a number"
        if math.isinf(value):
            return "∞ dB, identical" if value > 0 else "−∞ dB"
        return f"{value:.1f} dB".replace("-", "−")


def _ratio(signal: float, noise: float) -> float:
    return math.inf if noise == 0 else -math.inf if signal == 0 else float(10 * np.log10(signal / noise))
