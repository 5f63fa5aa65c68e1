"""Block-sparse matrices: some tiles are stored, all others are zero."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcc.ir.encoding.algebra import Encoding, Leaf, MatrixShape, Ops, Part, Read, V, inside, under
from qcc.ir.errors import Refused


@dataclass(frozen=True)
class Sparse(Encoding):
    """A share of the tiles ``rows x columns`` of a matrix, each a row of what an inner encoding stores.

    Every tile has a number: 0 is the tile of zeros, others count those that are kept.

    Args:
        rows: of a tile.
        columns: of a tile.
        keep: the share of tiles that are kept.
        inner: how the kept tiles are stored ``[tiles, rows * columns]``.
    """

    rows: int
    columns: int
    keep: float
    inner: Encoding

    @property
    def text(self) -> str:
        """The tiles, the share and how they are stored."""
        return f"blocks({self.rows}x{self.columns}, keep = {self.keep:.6g}, {self.inner.text})"

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Those of the kept tiles, and the number of each tile."""
        return {
            **inside(self.inner.parts((self._count(shape), self.rows * self.columns)), "tiles"),
            "number": Part((self._tiles(shape),), 32, np.int32),
        }

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """Each tile by its number, and all in their places."""
        down, across, size = shape[0] // self.rows, shape[1] // self.columns, self.rows * self.columns
        kept = ops.decode(self.inner, under(read, "tiles"), (self._count(shape), size))
        tiles = ops.take(ops.concat((ops.zeros((1, size)), kept), 0), read("number"), 0)
        apart = ops.reshape(tiles, (down, across, self.rows, self.columns))
        return ops.reshape(ops.transpose(apart, (0, 2, 1, 3)), shape)

    def encode(self, matrix: np.ndarray, leaf: Leaf) -> dict[str, np.ndarray]:
        """The tiles of the largest norms are kept."""
        shape = matrix.shape[0], matrix.shape[1]
        if shape[0] % self.rows or shape[1] % self.columns:
            raise Refused(f"tiles of {self.rows}x{self.columns} do not divide a weight of {shape[0]}x{shape[1]}")
        tiles = matrix.reshape(shape[0] // self.rows, self.rows, shape[1] // self.columns, self.columns)
        flat = np.ascontiguousarray(tiles.swapaxes(1, 2).reshape(-1, self.rows * self.columns))
        count = self._count(shape)
        kept = np.sort(np.argsort(-np.linalg.norm(flat, axis=1), kind="stable")[:count])
        number = np.zeros(len(flat), np.int32)
        number[kept] = np.arange(1, count + 1)
        return {**inside(self.inner.encode(flat[kept], leaf), "tiles"), "number": number}

    def _tiles(self, shape: MatrixShape) -> int:
        return (shape[0] // self.rows) * (shape[1] // self.columns)

    def _count(self, shape: MatrixShape) -> int:
        return max(round(self._tiles(shape) * self.keep), 1)
