"""What calibration saw of the numbers that a layer reads: their second moments, in two parts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from qcc.ir.graph.ops import Array


@dataclass(frozen=True)
class Moments:
    """Gram matrices of a layer's inputs, of all samples and of those that are held out.

    What is chosen by the samples that are not held out can be judged by those that are. Rows are positions that count:
    those that an attention mask hides do not.

    Args:
        gram: ``X'X / rows`` ``[in, in]`` of all.
        rows: how many.
        held: the same of the samples held out.
        held_rows: how many of the rows are theirs; none if nothing could be held out.
        hidden_rows: how many more there were that a mask hides.
        repeated_rows: how many of the rows are of samples that were there before.
        pull: where inputs ``X`` are a compressed model's, what the float weights leave undone on them, ``D'X / rows``
            ``[out, in]`` with ``D`` what the layer must add to ``XW'``; None where inputs are the float model's own.
        held_pull: the same of the samples held out.
    """

    gram: Array
    rows: int
    held: Array
    held_rows: int
    hidden_rows: int = 0
    repeated_rows: int = 0
    pull: Array | None = None
    held_pull: Array | None = None

    @property
    def judged(self) -> bool:
        """There is a part to learn from and a part to judge by."""
        return 0 < self.held_rows < self.rows

    @property
    def chance(self) -> float:
        """How far chance alone spreads the eigenvalues of `gram`, over their mean.

        Those of so many rows of white noise lie within ``(1 ± √γ)²``, with ``γ`` the inputs over the rows: what is
        found below the upper end cannot be told from nothing. Rows of repeated samples tell nothing new.

        Source: Marchenko and Pastur, *Distribution of eigenvalues for some sets of random matrices* (1967).
        """
        return float((1 + np.sqrt(len(self.gram) / max(self.rows - self.repeated_rows, 1))) ** 2 - 1)

    @property
    def seen(self) -> Array:
        """The Gram matrix of the samples that are not held out."""
        return self._seen(self.gram, self.held)

    @property
    def seen_pull(self) -> Array | None:
        """The pull of the samples that are not held out."""
        return None if self.pull is None or self.held_pull is None else self._seen(self.pull, self.held_pull)

    def _seen(self, whole: Array, held: Array) -> Array:
        left = self.rows - self.held_rows
        dtype = whole.dtype.type
        return np.asarray(whole * dtype(self.rows / left) - held * dtype(self.held_rows / left))


def grams_of(moments: Mapping[str, Moments]) -> dict[str, Array]:
    """The Gram matrices of all samples."""
    return {name: one.gram for name, one in moments.items()}


def seen_of(moments: Mapping[str, Moments]) -> Mapping[str, Array]:
    """The Gram matrices of the samples that are not held out, each made when it is asked for."""
    return _Seen(moments)


class _Seen(Mapping[str, Array]):
    def __init__(self, moments: Mapping[str, Moments]) -> None:
        self._moments = moments

    def __getitem__(self, name: str) -> Array:
        one = self._moments[name]
        return one.seen if one.judged else one.gram

    def __iter__(self) -> Iterator[str]:
        return iter(self._moments)

    def __len__(self) -> int:
        return len(self._moments)
