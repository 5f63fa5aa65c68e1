"""Products: a matrix as the product of two narrow ones, or what another encoding left of it."""

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
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.factors import leading, partner
from qcc.ir.encoding.format import LARGEST_RANK, Composition, Limits, Share, check_share, percent, whole
from qcc.ir.encoding.formats.composed.stack import Stack
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.reference import NUMPY

FACTORS = Blocked(IntGrid(8))


@dataclass(frozen=True)
class LowRank(Encoding):
    """``W [out, in] ~ A [out, rank] @ B [rank, in]``, each stored by an encoding of its own.

    Args:
        rank: the columns of A; 0 where a share is given.
        share: the rank as a share of the shorter side; 0 where a rank is given.
        factors: how both are stored.

    Raises:
        ValueError: neither is given, or both are.
    """

    corrects: ClassVar[bool] = True

    rank: int
    share: float
    factors: Encoding

    def __post_init__(self) -> None:
        if self.factors.open:
            raise ValueError(f"both factors are stored alike, and {self.factors.text} differs from matrix to matrix")
        if bool(self.rank) == bool(self.share):
            raise ValueError("`low_rank` takes a share, as in `25%`, or a rank")
        if self.share:
            check_share(self.share)
        if not 0 <= self.rank <= LARGEST_RANK:
            raise ValueError(f"a rank is from 1 to {LARGEST_RANK}, not {self.rank}")

    @property
    def text(self) -> str:
        """The rank and how factors are stored."""
        size = f"share = {percent(self.share)}" if self.share else f"rank = {self.rank}"
        return f"low_rank({size}, {self.factors.text})"

    @property
    def within(self) -> tuple[Encoding, ...]:
        """How factors are stored."""
        return (self.factors,)

    @property
    def learns(self) -> bool:
        """Singular vectors follow what columns are multiplied with."""
        return True

    @property
    def rows_apart(self) -> bool:
        """A row is that of the left factor, times the right one."""
        return self.factors.rows_apart

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Those of the two factors."""
        rank = self.rank_of(shape)
        left, right = self.factors.parts((shape[0], rank)), self.factors.parts((rank, shape[1]))
        return {**inside(left, "left"), **inside(whole(right), "right")}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """The product."""
        rank = self.rank_of(shape)
        left = ops.decode(self.factors, under(read, "left"), (shape[0], rank))
        return ops.multiply(left, ops.decode(self.factors, under(read, "right"), (rank, shape[1])))

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """The product."""
        rank = self.rank_of(shape)
        left = ops.decode_rows(self.factors, under(read, "left"), lead, (shape[0], rank))
        return ops.multiply(left, ops.decode(self.factors, under(read, "right"), (rank, shape[1])))

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """The leading singular vectors, each scaled by the root of its singular value.

        Errors count as they do at the layer's output, as far as data tells. The right factor makes up for what storing
        the left one lost.
        """
        shape = matrix.shape[0], matrix.shape[1]
        rank = self.rank_of(shape)
        first = self.factors.fit(leading(fitter.whitened(matrix), rank), fitter.blind())
        stored = self.factors.decode(NUMPY, first.parts().__getitem__, (shape[0], rank))
        second = self.factors.fit(partner(stored, matrix), fitter)
        parts = {**inside(first.parts(), "left"), **inside(second.parts(), "right")}
        return FittedProduct(parts, self.decode(NUMPY, parts.__getitem__, shape))

    def rank_of(self, shape: MatrixShape) -> int:
        """The columns of the left factor of a matrix."""
        rank = self.rank or max(round(self.share * min(shape)), 1)
        return min(rank, *shape)


def correction(encoding: Encoding) -> tuple[LowRank, str] | None:
    """The product in an encoding that is one or a sum with one, and what names of its parts begin with."""
    if isinstance(encoding, LowRank):
        return encoding, ""
    found = [(one, f"{at}.") for at, one in enumerate(encoding.summands) if isinstance(one, LowRank)]
    return found[0] if len(found) == 1 else None


class FittedProduct(Fitted):
    """Factors, which no weight can choose by itself."""

    fixed: ClassVar[bool] = True

    def __init__(self, parts: dict[str, np.ndarray], product: np.ndarray) -> None:
        self._parts, self._product = parts, product

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """What the product has there."""
        return np.asarray(self._product[rows, columns])

    def parts(self) -> dict[str, np.ndarray]:
        """Those of the two factors."""
        return dict(self._parts)


@dataclass(frozen=True)
class NarrowProduct(Composition):
    """A weight as the product of two narrow matrices, or what another encoding left of it.

    ``low_rank(25%, int8)`` stores a weight of 1,024 outputs and 512 inputs as 1,024 x 128 and 128 x 512 numbers;
    ``low_rank(int4 group 32, 25%, int8)`` stores what int4 left of it so, beside int4.

    Args:
        base: what the product is added to; none if left out.
        share: of the shorter side, the columns of the left factor.
        rank: the same as a number.
        factors: how both are stored.

    Source: LQER, Zhang et al. 2024 (arXiv:2402.02446), section 3, for products beside another encoding.
    """

    keyword: ClassVar[str] = "low_rank"

    base: Encoding | None = None
    share: Share | None = None
    rank: Annotated[int, Limits(1, LARGEST_RANK)] | None = None
    factors: Encoding = FACTORS

    def encoding(self) -> Encoding:
        """By its arguments."""
        product = LowRank(self.rank or 0, self.share or 0.0, self.factors)
        return product if self.base is None else Stack((self.base, product))
