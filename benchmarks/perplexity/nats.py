"""What a language model gives for what comes next."""

import numpy as np

from qcc.ir.graph.ops import Array


def nats(logits: Array, wanted: Array) -> Array:
    """The cross entropy of each token: ``logits [..., vocabulary]``, ``wanted [...]`` of whole numbers."""
    peak = logits.max(-1)
    total = peak + np.log(np.exp(logits - peak[..., None]).sum(-1, dtype=np.float64))
    return np.asarray(total - np.take_along_axis(logits, wanted.astype(np.int64)[..., None], -1)[..., 0])


def perplexity_of(losses: list[Array]) -> float:
    """Of windows, by the cross entropy of their tokens."""
    return float(np.exp(np.mean([one.mean() for one in losses])))
