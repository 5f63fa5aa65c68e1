"""Encodings: an element grid, the block that shares a scale, and the type of the scale.

A weight ``w`` in a block of scale ``s`` and zero ``z`` is stored as a code ``c`` of ``bits`` bits with
``w ~ (c - z) * s``. One definition gives ``fit``, ``quantize``, ``decode`` and the exact size; how the codes are laid
out in a file is the business of ``forms`` and ``packing``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from qcc.ir.blocks import Block
from qcc.ir.errors import Refused

MIN_BITS, MAX_BITS = 2, 8
ScaleType = Literal["fp16", "fp32"]
SCALE_TYPES: dict[ScaleType, type[np.floating]] = {"fp16": np.float16, "fp32": np.float32}


@dataclass(frozen=True)
class IntGrid:
    """The integers of ``bits`` bits; symmetric ones have their zero at half the range."""

    bits: int
    symmetric: bool = True

    @property
    def levels(self) -> int:
        """How many codes there are."""
        return 1 << self.bits

    @property
    def middle(self) -> int:
        """The code of zero in a symmetric grid."""
        return self.levels // 2


@dataclass(frozen=True)
class Encoding:
    """A way to store a matrix. Compares and hashes by value; ``text`` is its canonical spelling."""

    grid: IntGrid
    block: Block
    scale: ScaleType = "fp16"

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
        return f"int{self.bits} {self.block.text} {'sym' if self.symmetric else 'asym'} scale {self.scale}"

    @property
    def scale_dtype(self) -> type[np.floating]:
        """Numpy's type of the stored scales."""
        return SCALE_TYPES[self.scale]

    def size_bits(self, shape: tuple[int, int]) -> int:
        """Bits of the codes, scales and zero points of a matrix, before any padding to whole bytes."""
        down, across = self.block.grid(shape)
        overhead = np.dtype(self.scale_dtype).itemsize * 8 + (0 if self.symmetric else self.bits)
        return shape[0] * shape[1] * self.bits + down * across * overhead

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """``size_bits`` shared out over the weights."""
        return self.size_bits(shape) / max(shape[0] * shape[1], 1)


@dataclass(frozen=True)
class Scales:
    """Per block of a matrix, ``[down, across]``: scales as stored, and zero points (None if symmetric)."""

    scale: np.ndarray
    zero: np.ndarray | None

    def rows(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Scales (float32) and zeros, one row a block ``[blocks, 1]``."""
        zero = None if self.zero is None else self.zero.reshape(-1, 1)
        return self.scale.astype(np.float32).reshape(-1, 1), zero


@dataclass(frozen=True)
class Encoded:
    """A stored matrix: codes ``[out, in]`` uint8, one a code, and the scales of its blocks."""

    encoding: Encoding
    codes: np.ndarray
    scales: Scales

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.codes.shape[0], self.codes.shape[1]

    def decode(self) -> np.ndarray:
        """The float32 matrix ``[out, in]`` that the codes stand for."""
        block = self.encoding.block
        scale, zero = self.scales.rows()
        values = block.split(self.codes).astype(np.float32)
        values -= self.encoding.grid.middle if zero is None else zero.astype(np.float32)
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
