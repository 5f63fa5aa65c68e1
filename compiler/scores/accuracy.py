"""How often the likeliest class is the right one."""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from qcc.compiler.scores.paired import Drop, margin_drop, margins_tell
from qcc.compiler.scores.score import OfLabels

IGNORED = -100  # a label that does not count, as frameworks have it


class Accuracy(OfLabels):
    """Share of samples whose largest output is that of their label (top-1); labels of -100 do not count."""

    rank: ClassVar[int] = 0
    loss: ClassVar[str] = "top_kl"

    def parts(self, output: np.ndarray, known: np.ndarray) -> np.ndarray:
        """How many are right, of how many: one for a sample, or one for each of its tokens."""
        guess = output
        if output.dtype.kind == "f":
            if output.ndim < 2 or output.shape[-1] < 2:
                raise ValueError(f"an output of {shown(output)} has no classes of which one is the largest")
            guess = output.argmax(axis=-1)
        if guess.shape != known.shape:
            raise ValueError(f"an output of {shown(output)} has {shown(guess)} guesses, and there are {shown(known)}")
        counts = known != IGNORED
        right = counts & (guess == known)
        axes = tuple(range(1, known.ndim))
        margins = _margins(output, known) if guess is not output and known.ndim == 1 else np.full(len(known), np.nan)
        return np.stack([right.sum(axis=axes), counts.sum(axis=axes), margins], axis=1).astype(np.float64)

    def drop(self, before: np.ndarray, after: np.ndarray, relative: bool) -> Drop:
        """How many samples get worse, by their margins where there are any."""
        found = self.of_means(before[:, :2], after[:, :2], relative)
        margins = before[:, 2], after[:, 2]
        if found.lost is None or not np.isfinite(margins).all() or not margins_tell(len(before)):
            return found
        estimate, upper = margin_drop(*margins)
        return replace(found, estimate=estimate, upper=upper, by_margins=True)


def _margins(output: np.ndarray, known: np.ndarray) -> np.ndarray:
    """By how much the right class is ahead of all others ``[samples]``; not a number where a label is no class."""
    scores = output.astype(np.float64)
    places, classes = np.arange(len(known)), scores.shape[-1]
    label = np.where((known >= 0) & (known < classes), known, 0).astype(np.int64)
    right = scores[places, label]
    scores[places, label] = -np.inf
    return np.where((known >= 0) & (known < classes), right - scores.max(axis=-1), np.nan)


def shown(array: np.ndarray) -> str:
    """A shape in words."""
    return "x".join(map(str, array.shape)) or "one number"
