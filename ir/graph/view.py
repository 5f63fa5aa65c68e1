"""How a constant of any rank is read as a matrix ``[out, in]``, and back."""

from dataclasses import dataclass
from math import prod

import numpy as np


@dataclass(frozen=True)
class MatrixView:
    """The axes of a constant that make the rows (``out``) and the columns (``in``) of its matrix.

    A linear weight stored ``[in, out]`` has ``out_axes=(1,)``, a convolution's ``[o, i, kh, kw]`` has ``(0,)``, a
    batch of expert matrices ``[e, in, out]`` has ``(0, 2)``. The other axes make the columns, in the order of
    ``in_axes`` where a layer reads the constant transposed, else in their own.
    """

    shape: tuple[int, ...]
    out_axes: tuple[int, ...]
    in_axes: tuple[int, ...] = ()

    @property
    def order(self) -> tuple[int, ...]:
        """All axes, rows first."""
        columns = tuple(axis for axis in range(len(self.shape)) if axis not in self.out_axes)
        return self.out_axes + (self.in_axes or columns)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows = prod(self.shape[axis] for axis in self.out_axes)
        return rows, prod(self.shape) // max(rows, 1)

    @property
    def is_matrix(self) -> bool:
        """The constant's own memory order is the matrix's."""
        return self.order == tuple(range(len(self.shape)))

    @property
    def is_transposed(self) -> bool:
        """The constant's own memory order is the transposed matrix's."""
        rows = len(self.out_axes)
        columns = len(self.shape) - rows
        return self.order == (*range(columns, columns + rows), *range(columns))

    def permuted(self, order: tuple[int, ...]) -> "MatrixView":
        """The view of this constant when an op reads it transposed by ``order`` and this is the op's own view."""
        shape = [0] * len(order)
        for position, axis in enumerate(order):
            shape[axis] = self.shape[position]
        rows, columns = self.order[: len(self.out_axes)], self.order[len(self.out_axes) :]
        in_axes = tuple(order[axis] for axis in columns)
        plain = list(in_axes) == sorted(in_axes)  # spelt one way, so that equal views compare equal
        return MatrixView(tuple(shape), tuple(order[axis] for axis in rows), () if plain else in_axes)

    def matrix(self, array: np.ndarray) -> np.ndarray:
        """The constant as a matrix."""
        return array.reshape(self.shape).transpose(self.order).reshape(self.matrix_shape)

    def array(self, matrix: np.ndarray) -> np.ndarray:
        """A matrix as the constant."""
        inverse = np.argsort(self.order)
        return matrix.reshape([self.shape[axis] for axis in self.order]).transpose(inverse)
