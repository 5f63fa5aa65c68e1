"""How near outputs are to what they should be, by their direction."""

from typing import ClassVar

import numpy as np

from qcc.compiler.scores.accuracy import shown
from qcc.compiler.scores.score import OfLabels


class CosineScore(OfLabels):
    """Cosine between a sample's output and its label, a vector; without labels, the original's output."""

    rank: ClassVar[int] = 3
    labelled: ClassVar[bool] = False

    def parts(self, output: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Of each sample."""
        got, wanted = (one.reshape(one.shape[0], -1).astype(np.float64) for one in (output, known))
        if got.shape != wanted.shape:
            raise ValueError(f"an output of {shown(output)} has no cosine with labels of {shown(known)}")
        sizes = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
        cosines = np.divide((got * wanted).sum(axis=1), sizes, out=np.zeros(len(got)), where=sizes > 0)
        return np.stack([np.minimum(cosines, 1.0), np.ones(len(got))], axis=1)
