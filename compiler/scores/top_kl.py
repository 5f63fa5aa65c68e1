"""How far distributions over classes are from the original's."""

from typing import ClassVar, Literal

import numpy as np

from qcc.compiler.metrics.top_kl import TopKl
from qcc.compiler.scores.accuracy import shown
from qcc.compiler.scores.score import OfLabels

DIVERGENCE = TopKl()


class TopKlScore(OfLabels):
    """Divergence in nats from the original's outputs, of the 32 likeliest classes; it needs no labels."""

    rank: ClassVar[int] = 4
    better: ClassVar[Literal["more", "less"]] = "less"
    labelled: ClassVar[bool] = False
    loss: ClassVar[str] = "top_kl"

    def parts(self, output: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Nats of each sample's rows, and how many they are."""
        if output.shape != known.shape or output.ndim < 2:
            raise ValueError(f"an output of {shown(output)} has no classes of the original's, {shown(known)}")
        nats, ones = DIVERGENCE.powers(known.astype(np.float64), output.astype(np.float64))
        rows = len(output)
        return np.stack([nats.reshape(rows, -1).sum(axis=1), ones.reshape(rows, -1).sum(axis=1)], axis=1)
