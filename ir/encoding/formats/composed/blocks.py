"""Block-sparse matrices: some tiles are stored, all others are zero."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from qcc.ir.encoding.blocked import FLOAT32
from qcc.ir.encoding.format import Composition, Limits, Share, check_share, least_share, numbers_below, percent
from qcc.ir.encoding.pruning import MOST_ROUNDS, USUAL, By, losses, told
from qcc.ir.encoding.swaps import Curve, exchanged

LARGEST_TILE = 1 << 16  # weights


@dataclass(frozen=True)
class Sparse(Encoding):
    """A share of the tiles ``rows x columns`` of a matrix, each a row of what an inner encoding stores.

    Every tile has a number: 0 is the tile of zeros, others count those that are kept. Tiles at the edges are filled up.

    Args:
        rows: of a tile.
        columns: of a tile.
        keep: the share of tiles that are kept.
        inner: how the kept tiles are stored ``[tiles, rows * columns]``.
        by: what tells how much a tile matters.
        effort: rounds of exchanges.

    Raises:
        ValueError: a tile has no weights or too many, or nothing is kept.
    """

    rows: int
    columns: int
    keep: float
    inner: Encoding
    by: By = USUAL
    effort: int = 0

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1 or not 1 < self.rows * self.columns <= LARGEST_TILE:
            raise ValueError(f"a block has 2 to {LARGEST_TILE} weights, not {self.rows}x{self.columns}")
        check_share(self.keep)

    @property
    def text(self) -> str:
        """The tiles, the share and how they are stored."""
        by = told(self.by, self.effort)
        inner = "" if self.inner == FLOAT32 else f", {self.inner.text}"
        return f"blocks({self.rows}x{self.columns}, keep = {percent(self.keep)}{by}{inner})"

    @property
    def within(self) -> tuple[Encoding, ...]:
        """How kept tiles are stored."""
        return (self.inner,)

    @property
    def tile(self) -> MatrixShape:
        """Outputs by inputs."""
        return self.rows, self.columns

    def tiles_kept(self, shape: MatrixShape) -> int:
        """As asked, one at least."""
        return self._count(shape)

    @property
    def stays(self) -> tuple[float, float]:
        """As asked, rounded; few tiles may be so large that their numbers are nothing beside them."""
        return least_share(self.keep), 0.0

    @property
    def learns(self) -> bool:
        """What data tells says what stays."""
        return self.by != "magnitude" or self.inner.learns

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Those of the kept tiles, and the number of each tile."""
        count = self._count(shape)
        return {
            **inside(self.inner.parts((count, self.rows * self.columns)), "tiles"),
            "number": numbers_below(count + 1, self._tiles(shape)),
        }

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """Each tile by its number, and all in their places."""
        (down, across), size = self._tiles(shape), self.rows * self.columns
        kept = ops.decode(self.inner, under(read, "tiles"), (self._count(shape), size))
        tiles = ops.take(ops.concat((ops.zeros((1, size)), kept), 0), read("number"), 0)
        apart = ops.reshape(tiles, (down, across, self.rows, self.columns))
        filled = down * self.rows, across * self.columns
        matrix = ops.reshape(ops.transpose(apart, (0, 2, 1, 3)), filled)
        return matrix if filled == shape else ops.cut(matrix, shape)

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """The tiles whose loss would cost most are kept, and make up for the others."""
        (down, across), count = self._tiles(matrix.shape), self._count(matrix.shape)
        cost = losses(matrix, self.by, fitter, (self.rows, self.columns)).reshape(-1)
        stays = np.zeros(down * across, bool)
        stays[np.argsort(-cost, kind="stable")[:count]] = True
        stays, meant, curve = exchanged(matrix, stays.reshape(down, across), self.tile, 0, fitter, self.effort)
        number = np.zeros((down, across), numbers_below(count + 1, ()).dtype)
        number[stays] = np.arange(1, count + 1)
        fill = (0, down * self.rows - matrix.shape[0]), (0, across * self.columns - matrix.shape[1])
        tiles = np.pad(meant, fill).reshape(down, self.rows, across, self.columns).swapaxes(1, 2)
        flat = tiles.reshape(-1, self.rows * self.columns)[stays.reshape(-1)]
        return FittedTiles(self, self.inner.fit(flat, fitter.blind()), number, meant, curve)

    def _tiles(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Tiles down and across."""
        return -(-shape[0] // self.rows), -(-shape[1] // self.columns)

    def _count(self, shape: tuple[int, ...]) -> int:
        down, across = self._tiles(shape)
        return max(round(down * across * self.keep), 1)


class FittedTiles(Fitted):
    """The kept tiles, and the number of every tile."""

    def __init__(self, encoding: Sparse, kept: Fitted, number: np.ndarray, meant: np.ndarray, curve: Curve) -> None:
        self._encoding, self._kept, self._number, self._meant = encoding, kept, number, meant
        self.curve = curve

    def meant(self, matrix: np.ndarray) -> np.ndarray:
        """With what stays in place of what is gone."""
        return self._meant

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """What is kept by its tile; all else is zero."""
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop)
        rows, columns = np.broadcast_arrays(rows, columns)
        high, wide = self._encoding.rows, self._encoding.columns
        number = self._number[rows // high, columns // wide]
        here = number > 0
        found = np.zeros_like(values)
        within = (rows % high * wide + columns % wide)[here]
        found[here] = self._kept.round(number[here].astype(np.intp) - 1, within, values[here])
        return found

    def settled(self, asked: Encoding) -> Encoding:
        """With what the kept tiles are stored in."""
        assert isinstance(asked, Sparse)
        return replace(asked, inner=self._kept.settled(asked.inner))

    def parts(self) -> dict[str, np.ndarray]:
        """Those of the kept tiles, and the numbers."""
        return {**inside(self._kept.parts(), "tiles"), "number": self._number}


@dataclass(frozen=True)
class SparseBlocks(Composition):
    """Blocks of weights that are kept; all others are zero and take no space.

    Those blocks are kept whose loss would cost most at the layer's output, and the weights in them are fitted anew, so
    that they make up for those that are gone. Both take calibration data; without, the blocks with the largest weights
    are kept as they are. Blocks at the edges of a weight are filled up with zeros.

    Args:
        tile: outputs by inputs of a block.
        keep: the share of blocks that is kept.
        by: what tells the cost: `magnitude` the squares of the weights, `wanda` those times the power of the inputs,
            `taylor` all that the inputs of a block have to do with each other, `obs` also what the weights that stay
            can make up for.
        effort: so many rounds in which blocks that stay are exchanged for others, as long as that lowers the error,
            after iCBS, Rosenberg et al. 2024 (arXiv:2411.17796).
        inner: how kept blocks are stored, each as one row; as they are by default.
    """

    keyword: ClassVar[str] = "blocks"
    filled: ClassVar[str] = "inner"

    tile: tuple[int, int]
    keep: Share
    by: By = USUAL
    effort: Annotated[int, Limits(0, MOST_ROUNDS)] = 0
    inner: Encoding = FLOAT32

    def encoding(self) -> Encoding:
        """By its arguments."""
        if len(self.tile) != 2:
            raise ValueError("a block has two extents, outputs by inputs, as in `32x32`")
        return Sparse(*self.tile, self.keep, self.inner, self.by, self.effort)
