"""Whether a model orders things as it should."""

from typing import ClassVar

import numpy as np

from qcc.compiler.scores.paired import Drop, resampled_drop
from qcc.compiler.scores.score import OfLabels


class Spearman(OfLabels):
    """Rank correlation of the output, or of the cosine between two neighbouring samples' outputs, with the labels.

    With one label for each sample the output is one number; with one for each two, they are a pair such as two
    sentences, and what is correlated is the cosine between their outputs.
    """

    rank: ClassVar[int] = 2

    def parts(self, output: np.ndarray, known: np.ndarray) -> np.ndarray:
        """The output of each sample, flat."""
        del known
        return output.reshape(output.shape[0], -1)

    def records(self, parts: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """What is foretold ``[labels, 2]``, beside the label."""
        assert labels is not None
        if labels.ndim != 1:
            raise ValueError("there is one label for each sample, or for each two")
        if len(parts) == 2 * len(labels):
            left, right = parts[0::2].astype(np.float64), parts[1::2].astype(np.float64)
            sizes = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
            foretold = np.divide((left * right).sum(axis=1), sizes, out=np.zeros(len(labels)), where=sizes > 0)
        elif parts.shape[1] == 1:
            foretold = parts[:, 0].astype(np.float64)
        else:
            raise ValueError(f"an output of {parts.shape[1]} numbers a sample is none that can be ordered")
        return np.stack([foretold, labels.astype(np.float64)], axis=1)

    def value(self, records: np.ndarray) -> float:
        """The correlation of the ranks; 0 where all are equal."""
        ranks = [_ranks(column) for column in records.T]
        centred = [one - one.mean() for one in ranks]
        size = float(np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1])))
        return float(centred[0] @ centred[1]) / size if size else 0.0

    def drop(self, before: np.ndarray, after: np.ndarray, relative: bool) -> Drop:
        """By how much it falls."""
        del relative
        found = resampled_drop(lambda at: self.value(before[at]) - self.value(after[at]), len(before))
        return Drop(*found, len(before))


def _ranks(column: np.ndarray) -> np.ndarray:
    """Places in order; equal ones share theirs."""
    _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[place], np.float64)
