"""Cosine similarity."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from qcc.compiler.metrics.metric import Compared, Judged, Limits


class Cosine(Judged):
    """Similarity to the input model's outputs, least of all outputs."""

    rank: ClassVar[int] = 1
    relation: ClassVar[Literal["<=", ">="]] = ">="
    units: ClassVar[Mapping[str, Limits]] = {"": (-1, 1)}
    told: ClassVar[bool] = True
    equal: ClassVar[float] = 1.0
    lost: ClassVar[float] = -1.0

    def of(self, compared: Compared) -> float:
        """The mean over the samples."""
        cosines = [cosine(want, have) for want, have in compared.rows]
        return float(np.mean(cosines)) if cosines else 1.0

    def varying(self, compared: Compared) -> float | None:
        """Takes each run's own mean off, so that it tells of the variation alone."""
        if compared.signal is None:
            return None
        want, have = compared.signal
        return cosine(want.reshape(-1), have.reshape(-1))

    def changed(self, share: float) -> float:
        """The share that is the same."""
        return 1 - share

    def without(self, value: float, share: float) -> float:
        """No more than the share that is left."""
        return min(value, 1 - share)

    def reshaped(self, value: float, share: float) -> float:
        """What is lost is at right angles."""
        return value * (1 - share)

    def noise(self, value: float) -> float:
        """Half the square of a small angle."""
        return 1 - value

    def text(self, value: float, unit: str = "") -> str:
        """In six decimals; 1 only where it is 1."""
        del unit
        if math.isnan(value):
            return "not a number"
        shown = f"{value:.6f}".replace("-", "−")
        return "1" if value == 1 else "> 0.999999" if shown == "1.000000" else shown


def cosine(wanted: np.ndarray, got: np.ndarray) -> float:
    """Of the angle between two vectors."""
    if np.array_equal(wanted, got):
        return 1.0
    scale = float(np.linalg.norm(wanted) * np.linalg.norm(got))
    return float(wanted @ got) / scale if scale else 0.0
