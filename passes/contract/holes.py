"""What is left of a weight of which a part is gone."""

from dataclasses import dataclass, field

import numpy as np

from qcc.ir.encoding.swaps import Curve

CELLS = 32  # of a picture, on each side
FULL = 9


@dataclass(frozen=True)
class Holes:
    """What a weight keeps of itself.

    Args:
        density: the share of its numbers that is stored.
        saliency: the share that these have of all squares, each times the power of its input where data told that.
        picture: how much of each part of the matrix is stored, a text of digits a row: 0 nothing, 9 all.
        curve: of a search for what stays, see `swaps.Curve`.
    """

    density: float
    saliency: float
    picture: tuple[str, ...]
    curve: Curve = field(default=(), compare=False)

    @classmethod
    def of(cls, matrix: np.ndarray, left: np.ndarray, density: float, gram: np.ndarray | None) -> "Holes":
        """Of a matrix ``[out, in]`` and what is decoded in its place.

        Args:
            matrix: as it was.
            left: as it is, with zeros where something is gone.
            density: the share that is stored.
            gram: of its inputs ``[in, in]``; None where nothing is known of them.
        """
        squares = np.square(matrix, dtype=np.float64)
        if gram is not None and len(gram) == matrix.shape[1]:
            squares *= np.diag(gram)
        there, whole = left != 0, float(squares.sum())
        saliency = float(squares[there].sum()) / whole if whole else 1.0
        return cls(density, saliency, _picture(there))


def _picture(there: np.ndarray) -> tuple[str, ...]:
    """Shares of parts of about equal sizes."""
    sums = there.astype(np.float64)
    for axis in (0, 1):
        edges = np.linspace(0, sums.shape[axis], min(CELLS, sums.shape[axis]) + 1).astype(int)
        sizes = np.diff(edges).reshape((-1, 1) if axis == 0 else (1, -1))
        sums = np.add.reduceat(sums, edges[:-1], axis=axis) / sizes
    return tuple("".join(str(round(FULL * one)) for one in row) for row in sums)
