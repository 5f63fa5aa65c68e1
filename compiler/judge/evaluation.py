"""What scores a model: it runs it on samples of its own, and says what is lost between two such runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from qcc.compiler.scores.paired import Drop
from qcc.ir.graph.graph import Runner

Records = Mapping[str, np.ndarray]
"""What is kept of a run for each score, sample by sample."""


class Evaluation(ABC):
    """Scores models on samples that chose nothing."""

    @abstractmethod
    def records(self, run: Runner) -> Records:
        """Run a model; the first one is the original.

        Raises:
            ModelError: it fails, or its outputs do not fit.
        """

    @abstractmethod
    def value(self, name: str, records: np.ndarray) -> float:
        """A score."""

    @abstractmethod
    def drop(self, name: str, before: np.ndarray, after: np.ndarray, relative: bool) -> Drop:
        """What is lost of a score; ``relative`` is of the score itself, where it is no share."""
