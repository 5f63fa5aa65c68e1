"""Which rows of a cache stay when it holds more than it may: those that queries looked at, the first and the last.

Each row has a score: the weight that queries gave it, summed, where a query counts the less the longer ago it was.
Beyond the bound the rows of the lowest scores go, each score taken as the largest of its neighbours'.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from qcc.ir.encoding.cached.rows import CachedRows

POOL = 5
"""Rows that share a score: the largest of theirs."""
SAFE = 1e30  # a score of rows that stay in any case


@dataclass(frozen=True)
class KeptRows:
    """How many rows of keys and values stay behind a run, head by head.

    Args:
        budget: rows at most.
        window: the last rows, which stay in any case; a query counts by ``(1 - 1 / window)`` to the power of its age.
        sinks: the first rows, which stay in any case.

    Raises:
        ValueError: more rows stay in any case than may.
    """

    budget: int
    window: int
    sinks: int

    def __post_init__(self) -> None:
        if self.budget < self.window + self.sinks:
            least = f"{self.window} of the window and {self.sinks} sinks"
            raise ValueError(f"of {self.budget} rows {least} cannot stay in any case")

    @property
    def fading(self) -> float:
        """What a score keeps of itself with each token."""
        return 1 - 1 / self.window

    def scored(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The scores behind a run.

        Args:
            scores: of earlier rows, ``[batch, heads, rows]``.
            weights: that queries gave earlier and new rows, ``[batch, heads, queries of a head, new, rows + new]``.
        """
        new = weights.shape[3]
        ages = np.power(np.float32(self.fading), np.arange(new - 1, -1, -1, dtype=np.float32))
        grown = np.pad(scores * np.float32(self.fading) ** np.float32(new), [(0, 0), (0, 0), (0, new)])
        return np.asarray(grown + np.einsum("bhgnt,n->bht", weights, ages), np.float32)

    def chosen(self, places: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Which rows stay, in order: ``[batch, heads, at most budget]``.

        Args:
            places: of the rows in the whole text, ascending, ``[batch, heads, rows]``.
            scores: of the same.
        """
        rows = places.shape[-1]
        total = places.max(initial=-1) + 1
        around = np.pad(scores, [(0, 0), (0, 0), (POOL // 2, POOL // 2)], constant_values=-np.inf)
        pooled = np.lib.stride_tricks.sliding_window_view(around, POOL, -1).max(-1) if rows else scores
        safe = (places < self.sinks) | (places >= total - self.window)
        ranked = np.argsort(-np.where(safe, SAFE, pooled), -1, kind="stable")[..., : self.budget]
        return np.sort(ranked, -1)


StoredRows = CachedRows | None
"""As what codes rows are stored; None for floats."""
CacheForm = Literal["decoded", "fused", "kernel"] | KeptRows
"""Who computes with them: standard ops, the runtime's own or one of ours; or the rows that stay, where some go, in
standard ops."""
