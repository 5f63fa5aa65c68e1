"""What a score is: a number for how well a model does its task, sample by sample, and what is lost of it.

A score is one class in a module of this folder, and its name is what stands in the parentheses of ``drop``; nothing
registers it. One that is `OfLabels` is computed from outputs and labels; all can be given by the user's own function.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np

from qcc.compiler.scores.paired import Drop, mean_drop


class Score:
    """A number for how well a model does its task."""

    rank: ClassVar[int] = 100
    """Where it stands in lists."""
    better: ClassVar[Literal["more", "less"]] = "more"
    share: ClassVar[bool] = True
    """It lies between -1 and 1: a drop in per cent is one in points of a hundred, else one of the score itself."""
    loss: ClassVar[str] = "output_error"
    """The metric of the outputs by which its drop is foreseen."""
    keyword: ClassVar[str] = ""
    """What it is called, if not by its module."""

    @property
    def name(self) -> str:
        """Its keyword."""
        return self.keyword or type(self).__module__.rpartition(".")[2]

    @property
    def summary(self) -> str:
        """The first line of its manual page, as a list has it."""
        line = (type(self).__doc__ or "").partition("\n")[0].rstrip(".")
        return line[:1].lower() + line[1:]

    def of_means(self, before: np.ndarray, after: np.ndarray, relative: bool) -> Drop:
        """What is lost of a score that is the mean of one number a sample, each with its weight.

        Args:
            before: sums and weights ``[samples, 2]`` of the original.
            after: of the other.
            relative: of the score itself, where it is no share.
        """
        sums, weights = before.T
        scale = max(float(weights.mean()), np.finfo(float).tiny)
        sign = 1.0 if self.better == "more" else -1.0
        lost = sign * (sums - after[:, 0]) / scale
        counted = self.share and bool(np.all(weights == 1)) and _whole(before[:, 0]) and _whole(after[:, 0])
        estimate, upper = mean_drop(lost, counted)
        changed = (int(np.sum(lost > 0)), int(np.sum(lost < 0))) if counted and len(lost) > 1 else (None, None)
        if relative and not self.share:
            whole = abs(self.mean(before))
            estimate, upper = _over(estimate, whole), None if upper is None else _over(upper, whole)
        return Drop(estimate, upper, len(lost), *changed)

    @staticmethod
    def mean(records: np.ndarray) -> float:
        """Of sums with weights."""
        total = float(records[:, 1].sum())
        return float(records[:, 0].sum()) / total if total else float("nan")


class OfLabels(Score, ABC):
    """A score that is computed from the first output of a model and what is known of each sample."""

    labelled: ClassVar[bool] = True
    """It needs labels; else it is held to the original's output."""

    @abstractmethod
    def parts(self, output: np.ndarray, known: np.ndarray) -> np.ndarray:
        """What is kept of the output on some samples ``[samples, ...]``.

        Args:
            output: of a batch.
            known: the labels of its samples, or the original's output.

        Raises:
            ValueError: they do not fit; the message says how.
        """

    def records(self, parts: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """What all parts come to; by default a sum and a weight for each sample."""
        del labels
        return parts

    def value(self, records: np.ndarray) -> float:
        """The score."""
        return self.mean(records)

    def drop(self, before: np.ndarray, after: np.ndarray, relative: bool) -> Drop:
        """What is lost from one to the other; ``relative`` is of the score itself, where it is no share."""
        return self.of_means(before, after, relative)


def _whole(numbers: np.ndarray) -> bool:
    return bool(np.all((numbers == 0) | (numbers == 1)))


def _over(lost: float, whole: float) -> float:
    return lost / whole if whole else 0.0 if lost == 0 else float("inf") if lost > 0 else -float("inf")
