"""Structured products: a matrix whose blocks are narrow products, of few weights and fewer multiplications."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding, Fitted, Fitter, MatrixShape, Ops, Part, Read, V, inside, under
from qcc.ir.encoding.factors import leading, partner
from qcc.ir.encoding.format import LARGEST_RANK, Composition, Limits
from qcc.ir.encoding.formats.composed.low_rank import FACTORS, FittedProduct
from qcc.ir.encoding.reference import NUMPY

MOST_BLOCKS = 256


@dataclass(frozen=True)
class BlockProducts(Encoding):
    """Blocks ``[down, across]``, each ``A [out / down, rank] @ B [rank, in / across]``.

    All left factors are stored as one matrix ``[out, across * rank]``, all right ones as ``[down * rank, in]``. The
    rows of a block follow each other, or are every so many of the matrix's where they are ``woven``.

    Args:
        down: how many blocks there are along the outputs.
        across: the same along the inputs.
        rank: of each.
        woven: the rows of a block are ``down`` apart.
        factors: how both are stored.

    Raises:
        ValueError: the factors differ from matrix to matrix.
    """

    down: int
    across: int
    rank: int
    woven: bool
    factors: Encoding

    def __post_init__(self) -> None:
        if self.factors.open:
            raise ValueError(f"both factors are stored alike, and {self.factors.text} differs from matrix to matrix")

    @property
    def text(self) -> str:
        """The blocks, the rank and how factors are stored."""
        rank = "" if self.woven and self.rank == 1 else f"rank = {self.rank}, "
        keyword = "monarch" if self.woven else "block_dense"
        return f"{keyword}({self.down}, {rank}{self.factors.text})"

    @property
    def within(self) -> tuple[Encoding, ...]:
        """How factors are stored."""
        return (self.factors,)

    @property
    def learns(self) -> bool:
        """Singular vectors follow what columns are multiplied with."""
        return True

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Those of the two factors."""
        left, right = self._shapes(shape)
        return {**inside(self.factors.parts(left), "left"), **inside(self.factors.parts(right), "right")}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """The products, block by block, and the blocks in their places."""
        high, wide = self._block(shape)
        first, second = self._shapes(shape)
        left = ops.decode(self.factors, under(read, "left"), first)
        right = ops.decode(self.factors, under(read, "right"), second)
        left = ops.reshape(left, (*self._apart(high), self.across, self.rank))
        left = ops.transpose(left, (1, 2, 0, 3) if self.woven else (0, 2, 1, 3))
        right = ops.reshape(right, (self.down, self.rank, self.across, wide))
        blocks = ops.multiply(left, ops.transpose(right, (0, 2, 1, 3)))
        filled = self.down * high, self.across * wide
        found = ops.reshape(ops.transpose(blocks, (2, 0, 1, 3) if self.woven else (0, 2, 1, 3)), filled)
        return found if filled == shape else ops.cut(found, shape)

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """The leading singular vectors of each block, by what columns are multiplied with.

        The right factors make up for what storing the left ones lost.
        """
        shape = matrix.shape[0], matrix.shape[1]
        places = list(self._places(shape))
        first, second = (np.zeros(one, np.float32) for one in self._shapes(shape))
        for rows, columns, _down, across in places:
            narrow = min(self.rank, len(rows), len(columns))
            found = leading(fitter.of(columns).whitened(matrix[np.ix_(rows, columns)]), narrow)
            first[rows, across * self.rank : across * self.rank + narrow] = found
        left = self.factors.fit(first, fitter.blind())
        stored = self.factors.decode(NUMPY, left.parts().__getitem__, self._shapes(shape)[0])
        for rows, columns, down, across in places:
            here = stored[rows, across * self.rank : (across + 1) * self.rank]
            ranks = np.arange(down * self.rank, (down + 1) * self.rank)
            second[np.ix_(ranks, columns)] = partner(here, matrix[np.ix_(rows, columns)])
        right = self.factors.fit(second, fitter.blind())
        parts = {**inside(left.parts(), "left"), **inside(right.parts(), "right")}
        return FittedProduct(parts, self.decode(NUMPY, parts.__getitem__, shape))

    def _places(self, shape: MatrixShape) -> Iterator[tuple[np.ndarray, np.ndarray, int, int]]:
        """The rows and columns of each block that has some, and which it is."""
        high, wide = self._block(shape)
        numbers = np.arange(self.down * high).reshape(self._apart(high))
        for down, across in np.ndindex(self.down, self.across):
            rows = numbers[:, down] if self.woven else numbers[down]
            columns = np.arange(across * wide, min((across + 1) * wide, shape[1]))
            rows = rows[rows < shape[0]]
            if rows.size and columns.size:
                yield rows, columns, down, across

    def _apart(self, high: int) -> tuple[int, int]:
        return (high, self.down) if self.woven else (self.down, high)

    def _block(self, shape: MatrixShape) -> tuple[int, int]:
        """The size of a block; the last ones reach beyond a matrix that they do not fill."""
        return -(-shape[0] // self.down), -(-shape[1] // self.across)

    def _shapes(self, shape: MatrixShape) -> tuple[MatrixShape, MatrixShape]:
        """Of both factors."""
        high, wide = self._block(shape)
        return (self.down * high, self.across * self.rank), (self.down * self.rank, self.across * wide)


@dataclass(frozen=True)
class Monarch(Composition):
    """A weight as two block-diagonal matrices with a shuffle between them.

    ``monarch(4)`` has 4 blocks in each: of 1,024 x 512 weights 4 x (1,024 + 512) numbers are stored. It is what
    projecting the weight gives: every fourth output over each quarter of the inputs is a block of rank one, or of more.
    Where blocks do not fill the weight, the last ones reach beyond it.

    Args:
        blocks: of each matrix.
        rank: of the blocks of the product.
        factors: how both are stored.

    Source: Monarch, Dao et al. 2022 (arXiv:2204.00595), section 3.2, for the projection.
    """

    keyword: ClassVar[str] = "monarch"

    blocks: Annotated[int, Limits(2, MOST_BLOCKS)]
    rank: Annotated[int, Limits(1, LARGEST_RANK)] = 1
    factors: Encoding = FACTORS

    def encoding(self) -> Encoding:
        """By its arguments."""
        return BlockProducts(self.blocks, self.blocks, self.rank, True, self.factors)


@dataclass(frozen=True)
class BlockDense(Composition):
    """A weight as a dense narrow matrix under a block-diagonal one.

    ``block_dense(4, rank = 16)`` stores each quarter of the outputs as a product of rank 16 of its own. Where
    blocks do not fill the weight, the last one reaches beyond it.

    Args:
        blocks: of the block-diagonal matrix.
        rank: of each.
        factors: how both are stored.

    Source: Building on efficient foundations, Wei et al. 2024 (arXiv:2406.16450), section 2.
    """

    keyword: ClassVar[str] = "block_dense"

    blocks: Annotated[int, Limits(2, MOST_BLOCKS)]
    rank: Annotated[int, Limits(1, LARGEST_RANK)]
    factors: Encoding = FACTORS

    def encoding(self) -> Encoding:
        """By its arguments."""
        return BlockProducts(self.blocks, 1, self.rank, False, self.factors)
