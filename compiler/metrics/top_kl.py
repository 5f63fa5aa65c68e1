"""How far next words are from what they were: the divergence of distributions over classes."""

from typing import ClassVar

import numpy as np

from qcc.compiler.metrics.metric import Additive, Compared, Judged, Pair

CLASSES = 32  # that are looked at one by one, the likeliest


class TopKl(Judged, Additive):
    """Divergence in nats of what outputs that are logits predict: the 32 likeliest classes, and all others as one.

    The divergence of Kullback and Leibler from the input model's distribution over the last axis, averaged over all
    rows. Taking the unlikely classes together makes it smaller, never larger; it is what language models and
    classifiers lose, where an output's scale and what all classes have in common do not count.
    """

    rank: ClassVar[int] = 20
    title: ClassVar[str] = "KL divergence"

    def of(self, compared: Compared) -> float:
        """The mean over the rows of the last axis."""
        found = [self.powers(want, have) for want, have in compared.pairs if want.size]
        rows = sum(signal.size for _, signal in found)
        return max(float(sum(noise.sum() for noise, _ in found)) / rows, 0.0) if rows else 0.0

    def noise(self, value: float) -> float:
        """A power itself."""
        return value

    def powers(self, wanted: np.ndarray, got: np.ndarray) -> Pair:
        """The divergence of each row, and one."""
        want, have = np.atleast_1d(wanted), np.atleast_1d(got)
        count = min(CLASSES, want.shape[-1])
        likely = np.argpartition(want, -count, axis=-1)[..., -count:]
        log_p, log_q = (_logs(one, likely) for one in (want, have))
        found = np.sum(np.exp(log_p) * (log_p - log_q), axis=-1, keepdims=True)
        return found, np.ones_like(found)

    def changed(self, share: float) -> float:
        """Classes that were decided on have no logits: those that changed were impossible."""
        return float("inf") if share else 0.0

    def without(self, value: float, share: float) -> float:
        """Where a logit is lost, so is the row."""
        return self.lost if share else value


def _logs(logits: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities of some classes, and of all others together behind them."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shares = np.exp(shifted)
    total = shares.sum(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, likely, axis=-1)
    np.put_along_axis(shares, likely, 0.0, axis=-1)
    rest = shares.sum(axis=-1, keepdims=True)
    if logits.shape[-1] == likely.shape[-1]:
        return np.asarray(chosen - np.log(total))
    return np.asarray(np.concatenate([chosen, np.log(np.maximum(rest, np.finfo(float).tiny))], axis=-1) - np.log(total))
