"""How surprised a language model is."""

from typing import ClassVar, Literal

import numpy as np

from qcc.compiler.scores.accuracy import IGNORED, shown
from qcc.compiler.scores.paired import Drop, mean_drop
from qcc.compiler.scores.score import OfLabels


class Perplexity(OfLabels):
    """Perplexity of the next tokens, of which less is better.

    Labels are the tokens themselves, as frameworks have them: the output at a place foretells the label at the next
    one, and labels of -100 do not count. Where there are none, the model's own first input of whole numbers is taken.
    """

    rank: ClassVar[int] = 1
    better: ClassVar[Literal["more", "less"]] = "less"
    share: ClassVar[bool] = False
    loss: ClassVar[str] = "top_kl"

    def parts(self, output: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Nats of each sample's tokens, and how many they are."""
        if output.ndim == 3 and known.shape == output.shape[:2]:
            output, known = output[:, :-1], known[:, 1:]
        elif output.ndim != 2 or known.shape != output.shape[:1]:
            raise ValueError(f"an output of {shown(output)} foretells no labels of {shown(known)}")
        counts = (known != IGNORED) & (known >= 0)
        if counts.any() and int(known[counts].max()) >= output.shape[-1]:
            raise ValueError(f"an output of {shown(output)} has no class {int(known[counts].max())}")
        logits = output.astype(np.float64)
        peak = logits.max(axis=-1, keepdims=True)
        total = peak[..., 0] + np.log(np.exp(logits - peak).sum(axis=-1))
        at = np.where(counts, known, 0).astype(np.int64)[..., None]
        nats = np.where(counts, total - np.take_along_axis(logits, at, axis=-1)[..., 0], 0.0)
        axes = tuple(range(1, known.ndim))
        return np.stack([nats.sum(axis=axes), counts.sum(axis=axes)], axis=1).astype(np.float64)

    def value(self, records: np.ndarray) -> float:
        """Of all tokens together."""
        return float(np.exp(self.mean(records)))

    def drop(self, before: np.ndarray, after: np.ndarray, relative: bool) -> Drop:
        """By how much it grows, of itself: the nats that each sample loses, as a factor."""
        scale = max(float(before[:, 1].mean()), np.finfo(float).tiny)
        estimate, upper = mean_drop((after[:, 0] - before[:, 0]) / scale, counted=False)
        unit = 1.0 if relative else self.value(before)
        most = None if upper is None else unit * float(np.expm1(upper))
        return Drop(unit * float(np.expm1(estimate)), most, len(before))
