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
    """

    gram: Array
    rows: int
    held: Array
    held_rows: int
    hidden_rows: int = 0
    repeated_rows: int = 0

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
        left = self.rows - self.held_rows
        dtype = self.gram.dtype.type
        return np.asarray(self.gram * dtype(self.rows / left) - self.held * dtype(self.held_rows / left))


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
