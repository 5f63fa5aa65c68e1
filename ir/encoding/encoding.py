"""Encodings: an element grid, the block that shares a scale, and the type of the scale.

A weight ``w`` in a block of scale ``s`` is stored as the code ``c`` of a number ``n(c)`` of the grid with
``w ~ n(c) * s``; in a grid of integers with a zero ``z``, ``n(c) = c - z``. A grid that reaches as far as weights do
needs no scale. One definition gives ``fit``, ``quantize``, ``decode`` and the exact size; how the codes are laid out in
a file is the business of ``forms`` and ``packing``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from qcc.ir.encoding.blocks import CHANNEL, Block
from qcc.ir.encoding.grid import FLOATS, FloatGrid, Grid, IntGrid
from qcc.ir.errors import Refused

__all__ = [
    "FLOAT_ENCODINGS",
    "MAX_BITS",
    "MIN_BITS",
    "SCALE_TYPES",
    "Encoded",
    "Encoding",
    "FloatGrid",
    "Grid",
    "IntGrid",
    "ScaleType",
    "Scales",
    "check_finite",
]

MIN_BITS, MAX_BITS = 2, 8  # of integers
ScaleType = Literal["fp16", "fp32"]
SCALE_TYPES: dict[ScaleType, type[np.floating]] = {"fp16": np.float16, "fp32": np.float32}


@dataclass(frozen=True)
class Encoding:
    """A way to store a matrix. Compares and hashes by value; ``text`` is its canonical spelling.

    Args:
        grid: the numbers that codes stand for.
        block: the weights that share a scale, and a zero point where there is one.
        scale: the type of the scales; None for weights that are numbers of the grid themselves.
    """

    grid: Grid
    block: Block = CHANNEL
    scale: ScaleType | None = "fp16"

    def __post_init__(self) -> None:
        if self.scale is not None and self.scale not in SCALE_TYPES:
            raise ValueError(f"scales are {' or '.join(SCALE_TYPES)}, not {self.scale}")

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return self.grid.bits

    @property
    def symmetric(self) -> bool:
        """No zero point is stored."""
        return self.grid.symmetric

    @property
    def text(self) -> str:
        """As the language spells it, every parameter named."""
        if self.scale is None:
            return self.grid.text
        words = (self.grid.text, self.block.text, self.grid.symmetry, f"scale {self.scale}")
        return " ".join(word for word in words if word)

    @property
    def scale_dtype(self) -> type[np.floating]:
        """Numpy's type of the scales, of ones where none are stored."""
        return np.float32 if self.scale is None else SCALE_TYPES[self.scale]

    @property
    def scale_bits(self) -> int:
        """Bits of a stored scale."""
        return 0 if self.scale is None else np.dtype(self.scale_dtype).itemsize * 8

    def size_bits(self, shape: tuple[int, int]) -> int:
        """Bits of the codes, scales and zero points of a matrix, before any padding to whole bytes."""
        down, across = self.block.grid(shape)
        overhead = self.scale_bits + (0 if self.symmetric else self.bits)
        return shape[0] * shape[1] * self.bits + down * across * overhead

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """``size_bits`` shared out over the weights."""
        return self.size_bits(shape) / max(shape[0] * shape[1], 1)


FLOAT_ENCODINGS = {name: Encoding(grid, scale=None) for name, grid in FLOATS.items()}
"""Floats without scales, by their names in the language."""


@dataclass(frozen=True)
class Scales:
    """Per block of a matrix, ``[down, across]``: scales as stored, and zero points (None if symmetric).

    An encoding without scales has ones, which nobody stores.
    """

    scale: np.ndarray
    zero: np.ndarray | None

    def rows(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Scales (float32) and zeros, one row a block ``[blocks, 1]``."""
        zero = None if self.zero is None else self.zero.reshape(-1, 1)
        return self.scale.astype(np.float32).reshape(-1, 1), zero


@dataclass(frozen=True)
class Encoded:
    """A stored matrix: codes ``[out, in]`` of the grid's unsigned type, one a weight, and the scales of its blocks.

    With an ``input_step`` its layers round what they multiply it with: ``step * clip(rint(x / step), -128, 127)``.

    Raises:
        ValueError: the parts are not of one another.
    """

    encoding: Encoding
    codes: np.ndarray
    scales: Scales
    input_step: np.float32 | None = None

    def __post_init__(self) -> None:
        grid, blocks = self.encoding.grid, self.encoding.block.grid(self.shape)
        if self.codes.dtype != grid.dtype or int(self.codes.max(initial=0)) >> grid.bits:
            raise ValueError(f"codes of {self.encoding.text} are below {1 << grid.bits}, in {grid.dtype.__name__}")
        if self.scales.scale.shape != blocks or self.scales.scale.dtype != self.encoding.scale_dtype:
            raise ValueError(
                f"scales of {self.encoding.text} are {blocks} here, in {self.encoding.scale_dtype.__name__}"
            )
        zero = self.scales.zero
        if (zero is None) != grid.symmetric or (zero is not None and zero.shape != blocks):
            raise ValueError(f"zero points of {self.encoding.text} are {'none' if grid.symmetric else blocks} here")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.codes.shape[0], self.codes.shape[1]

    def decode(self) -> np.ndarray:
        """The float32 matrix ``[out, in]`` that the codes stand for."""
        block = self.encoding.block
        scale, zero = self.scales.rows()
        values = self.encoding.grid.numbers(block.split(self.codes), zero)
        values *= scale
        return block.join(values, self.shape)


def check_finite(matrix: np.ndarray) -> None:
    """Refuse a weight that no finite grid can hold.

    Raises:
        Refused: it has a NaN or an infinity.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        total = float(np.sum(matrix, dtype=np.float64))
    if not np.isfinite(total) and not np.isfinite(matrix).all():
        bad = np.argwhere(~np.isfinite(matrix))[0]
        raise Refused(f"the weight holds {matrix[tuple(bad)]} at row {bad[0]}, column {bad[1]}", broken=True)
