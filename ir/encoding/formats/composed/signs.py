"""Signs with sizes from a narrow product: a bit a weight, and next to nothing beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.encoding.algebra import (
    Columns,
    Encoding,
    Fitted,
    Fitter,
    MatrixShape,
    Ops,
    Part,
    Read,
    Rows,
    V,
    inside,
    under,
)
from qcc.ir.encoding.blocked import Floats
from qcc.ir.encoding.factors import leading, partner
from qcc.ir.encoding.format import LARGEST_RANK, Composition, Limits, whole
from qcc.ir.encoding.grid import TableGrid
from qcc.ir.encoding.reference import NUMPY

FACTORS = Floats("fp16")
GRID = TableGrid("int1")
SHARE = 0.125  # of a bit a weight: what the sizes may take where nobody says a rank


@dataclass(frozen=True)
class Signs(Encoding):
    """``W [out, in] ~ S * (A [out, rank] @ B [rank, in])``, element by element, with signs ``S``.

    Args:
        rank: of the product; 0 follows the matrix, so that the factors take about an eighth of a bit a weight.

    Raises:
        ValueError: there is no such rank.
    """

    rank: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank <= LARGEST_RANK:
            raise ValueError(f"a rank is from 1 to {LARGEST_RANK}, not {self.rank}")

    @property
    def text(self) -> str:
        """The rank, where it does not follow the matrix."""
        return f"signs(rank = {self.rank})" if self.rank else "signs()"

    @property
    def within(self) -> tuple[Encoding, ...]:
        """How factors are stored."""
        return (FACTORS,)

    @property
    def learns(self) -> bool:
        """Sizes follow what columns are multiplied with."""
        return True

    @property
    def rows_apart(self) -> bool:
        """A row has its own signs and its own row of the left factor."""
        return True

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """The signs, and both factors."""
        rank = self._rank(shape)
        left, right = FACTORS.parts((shape[0], rank)), FACTORS.parts((rank, shape[1]))
        return {"codes": Part(shape, GRID.bits), **inside(left, "left"), **inside(whole(right), "right")}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """The product, with signs."""
        rank = self._rank(shape)
        left = ops.decode(FACTORS, under(read, "left"), (shape[0], rank))
        sizes = ops.multiply(left, ops.decode(FACTORS, under(read, "right"), (rank, shape[1])))
        return ops.scaled(read("codes"), GRID, None, sizes, shape, shape)

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """The product, with signs."""
        rank = self._rank(shape)
        left = ops.decode_rows(FACTORS, under(read, "left"), lead, (shape[0], rank))
        sizes = ops.multiply(left, ops.decode(FACTORS, under(read, "right"), (rank, shape[1])))
        return ops.scaled(read("codes"), GRID, None, sizes, (*lead, shape[1]), (*lead, shape[1]))

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """The leading singular vectors of the magnitudes, columns counting as much as data says."""
        shape = matrix.shape[0], matrix.shape[1]
        rank, sizes = self._rank(shape), np.abs(matrix)
        unit = np.float32(float(sizes.max(initial=0)) or 1.0)  # the factors share it evenly, and fp16 holds them
        left = FACTORS.fit(leading(sizes / unit * np.sqrt(fitter.weights(shape[1])), rank) * np.sqrt(unit), fitter)
        stored = FACTORS.decode(NUMPY, left.parts().__getitem__, (shape[0], rank))
        right = FACTORS.fit(partner(stored, sizes), fitter)
        parts = {**inside(left.parts(), "left"), **inside(right.parts(), "right")}
        product = stored @ FACTORS.decode(NUMPY, right.parts().__getitem__, (rank, shape[1]))
        return FittedSigns(parts, product, matrix)

    def _rank(self, shape: MatrixShape) -> int:
        out, inner = shape
        rank = self.rank or max(round(SHARE * out * inner / (16 * max(out + inner, 1))), 1)
        return min(rank, *shape)


class FittedSigns(Fitted):
    """Signs under fixed sizes."""

    def __init__(self, parts: dict[str, np.ndarray], sizes: np.ndarray, matrix: np.ndarray) -> None:
        self._parts, self._sizes = parts, sizes
        self._codes = self._nearest(matrix, sizes)

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """The size, as the value has its sign."""
        sizes = self._sizes[rows, columns]
        codes = self._nearest(values, sizes)
        self._codes[rows, columns] = codes
        return np.asarray(GRID.numbers(codes) * sizes)

    def parts(self) -> dict[str, np.ndarray]:
        """The signs, and both factors."""
        return {"codes": self._codes, **self._parts}

    @staticmethod
    def _nearest(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return np.asarray((values < 0) == (sizes < 0), np.uint8)  # where a product falls below zero, signs turn


@dataclass(frozen=True)
class SignedSizes(Composition):
    """A sign for each weight, and its size from the product of two narrow matrices: a little more than a bit.

    The levels of `stack`. On its own it is rough; sizes that follow the rows and columns of a matrix cost less than
    a scale for each group. The rank follows the matrix, unless one is given: on 384 x 384 weights it is 1, on
    4,096 x 4,096 it is 16.

    Args:
        rank: of the product.

    Source: BitStack, Wang et al. 2024 (arXiv:2410.23918), section 3.2; its rank is 16 whatever the matrix, which takes
    1.3 bits a weight on one of 384 x 384.
    """

    keyword: ClassVar[str] = "signs"

    rank: Annotated[int, Limits(1, LARGEST_RANK)] | None = None

    def encoding(self) -> Encoding:
        """By the rank."""
        return Signs(self.rank or 0)
