"""Which weights share a scale: the block shapes of an encoding."""

from dataclasses import dataclass

import numpy as np

TILE = (128, 256)  # rows and columns that are copied at once
PAD = 16  # numbers between


@dataclass(frozen=True)
class Block:
    """A tile of ``rows x columns`` of a matrix ``[out, in]``; 0 stands for the whole axis.

    ``tensor`` is 0x0, ``channel`` 1x0, ``group n`` 1xn. Sizes that do not divide the axis leave a smaller last block.
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 0 or self.columns < 0:
            raise ValueError(f"a block of {self.rows}x{self.columns} holds nothing")

    @property
    def text(self) -> str:
        """As the language spells it."""
        if self.rows == 0 and self.columns == 0:
            return "tensor"
        if self.rows == 1:
            return f"group {self.columns}" if self.columns else "channel"
        return f"tile {self.rows}x{self.columns}"

    def of(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The rows and columns of one block of a matrix of this shape."""
        return min(self.rows or shape[0], shape[0]), min(self.columns or shape[1], shape[1])

    def grid(self, shape: tuple[int, int]) -> tuple[int, int]:
        """How many blocks there are down and across: the shape of the scales."""
        rows, columns = self.of(shape)
        return -(-shape[0] // rows), -(-shape[1] // columns)

    def divides(self, shape: tuple[int, int]) -> bool:
        """All blocks of a matrix of this shape are whole."""
        rows, columns = self.of(shape)
        return shape[0] % rows == 0 and shape[1] % columns == 0

    def apart(self, matrix: np.ndarray) -> np.ndarray:
        """The blocks ``[down, rows, across, columns]`` of a matrix whose blocks are all whole, where they lie."""
        shape = (matrix.shape[0], matrix.shape[1])
        (rows, columns), (down, across) = self.of(shape), self.grid(shape)
        return matrix.reshape(down, rows, across, columns)

    def filled(self, matrix: np.ndarray) -> np.ndarray:
        """The matrix, with zeros behind it that fill short blocks."""
        shape = (matrix.shape[0], matrix.shape[1])
        (rows, columns), (down, across) = self.of(shape), self.grid(shape)
        if self.divides(shape):
            return matrix
        return np.pad(matrix, ((0, down * rows - shape[0]), (0, across * columns - shape[1])))

    def split(self, matrix: np.ndarray) -> np.ndarray:
        """The blocks of a matrix as rows ``[blocks, block size]``; short blocks are filled with zeros."""
        blocks = self.apart(self.filled(matrix)).swapaxes(1, 2)
        return blocks.reshape(blocks.shape[0] * blocks.shape[1], -1)

    def join(self, blocks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The matrix of this shape whose blocks these are."""
        (rows, columns), (down, across) = self.of(shape), self.grid(shape)
        matrix = blocks.reshape(down, across, rows, columns).swapaxes(1, 2).reshape(down * rows, across * columns)
        return np.ascontiguousarray(matrix[: shape[0], : shape[1]])


TENSOR, CHANNEL = Block(0, 0), Block(1, 0)


def group(size: int) -> Block:
    """Groups of ``size`` inputs of one output."""
    return Block(1, size)


def row_by_row(matrix: np.ndarray) -> np.ndarray:
    """A matrix row by row in memory.

    One that lies by columns is copied in tiles, each through memory of its own: rows that lie powers of two apart would
    drive each other out of the cache.
    """
    if matrix.flags.c_contiguous or matrix.ndim != 2:
        return np.ascontiguousarray(matrix)
    rows, columns = TILE
    copied, between = np.empty(matrix.shape, matrix.dtype), np.empty((columns, rows + PAD), matrix.dtype)
    for row in range(0, matrix.shape[0], rows):
        for column in range(0, matrix.shape[1], columns):
            part = matrix[row : row + rows, column : column + columns].T
            tile = between[: part.shape[0], : part.shape[1]]
            tile[...] = part
            copied[row : row + rows, column : column + columns] = tile.T
    return copied
