"""The algebra of encodings: the parts that are stored, and one expression that says what they mean.

An encoding names its parts (`Encoding.parts`) and says once, in a handful of operations, what they decode to
(`Encoding.decode`). All else follows. Sizes and the layout of files come from the parts. Each consumer brings an
interpreter of the operations: numpy computes the matrix (`reference`), the ONNX adapter writes nodes that do.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol, TypeVar

import numpy as np

from qcc.ir.encoding.grid import Grid

V = TypeVar("V")
MatrixShape = tuple[int, int]
Read = Callable[[str], V]
Parts = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Part:
    """An array that is stored.

    Args:
        shape: of the array.
        bits: that each element takes in a file.
        dtype: numpy's type of the elements in memory; codes of few bits lie one a byte.
    """

    shape: tuple[int, ...]
    bits: int
    dtype: type[np.generic] = np.uint8

    @property
    def size_bits(self) -> int:
        """Bits of all elements, before any padding to whole bytes."""
        return prod(self.shape) * self.bits


class Ops(Protocol[V]):
    """An interpreter of decode expressions."""

    def numbers(self, codes: V, grid: Grid, shape: Sequence[int]) -> V:
        """The numbers, float32, that codes of a grid stand for, in this shape."""
        ...

    def scaled(self, codes: V, grid: Grid, zero: V | None, scale: V, blocked: Sequence[int], shape: Sequence[int]) -> V:
        """``(numbers - zero) * scale`` in a shape with the blocks apart, over which both broadcast, as ``shape``."""
        ...

    def floats(self, stored: V) -> V:
        """Stored floats, as float32 where they are computed with."""
        ...

    def decode(self, encoding: "Encoding", read: Read[V], shape: MatrixShape) -> V:
        """What an encoding within another decodes to."""
        ...

    def decode_rows(self, encoding: "Encoding", read: Read[V], lead: Sequence[int], columns: int) -> V:
        """What rows of an encoding within another decode to."""
        ...

    def add(self, left: V, right: V) -> V:
        """The sum."""
        ...

    def multiply(self, left: V, right: V) -> V:
        """The product of two matrices."""
        ...

    def apart(self, value: V, axes: Sequence[int]) -> V:
        """With new axes of size one at these places."""
        ...

    def spread(self, value: V, axis: int, size: int, count: int) -> V:
        """Each element ``size`` times along an axis, cut at ``count``."""
        ...

    def reshape(self, value: V, shape: Sequence[int]) -> V:
        """In another shape."""
        ...

    def transpose(self, value: V, order: Sequence[int]) -> V:
        """With its axes in another order."""
        ...

    def concat(self, values: Sequence[V], axis: int) -> V:
        """One behind the other."""
        ...

    def take(self, value: V, index: V, axis: int) -> V:
        """What stands at these places of an axis."""
        ...

    def zeros(self, shape: Sequence[int]) -> V:
        """Nothing but zeros, float32."""
        ...


class Encoding(ABC):
    """A way to store a matrix ``[out, in]``. Compares and hashes by value."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The canonical spelling, in the language's words."""

    @abstractmethod
    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """What is stored of a matrix of this shape, by name."""

    @abstractmethod
    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """What the parts mean: the matrix, float32.

        Args:
            ops: the operations to say it in.
            read: gives a part by its name.
            shape: of the matrix.
        """

    @abstractmethod
    def encode(self, matrix: np.ndarray, leaf: "Leaf") -> dict[str, np.ndarray]:
        """The parts of a matrix, with codes and scales of what is stored by blocks chosen by ``leaf``.

        Raises:
            Refused: the encoding cannot hold the matrix.
        """

    @property
    def undecodable(self) -> str:
        """Why no decoder in a file knows it, though it can be rounded to and decoded here; empty if one does."""
        return ""

    @property
    def rows_apart(self) -> bool:
        """A row can be decoded from its own rows of what is stored."""
        return False

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], columns: int) -> V:
        """The same of some rows ``[*lead, columns]``, of which ``read`` gives the parts; lone numbers stay whole.

        Raises:
            NotImplementedError: rows cannot be told apart.
        """
        raise NotImplementedError(f"rows of {self.text} cannot be told apart")

    def turned(self) -> "Encoding | None":
        """The encoding of the transposed matrix, whose parts are those of this one transposed; None if none is."""
        return None

    @property
    def order(self) -> tuple[int, str]:
        """Where it stands in lists: by the bits of a weight, about, then by its text."""
        return round(self.bits_per_weight((256, 256))), self.text

    def size_bits(self, shape: MatrixShape) -> int:
        """Bits of all parts of a matrix, before any padding to whole bytes."""
        return sum(part.size_bits for part in self.parts(shape).values())

    def bits_per_weight(self, shape: MatrixShape) -> float:
        """``size_bits`` shared out over the weights."""
        return self.size_bits(shape) / max(shape[0] * shape[1], 1)


Leaf = Callable[[np.ndarray, "Encoding"], Mapping[str, np.ndarray]]
"""Encodes a matrix in an encoding that holds no other; a rounding method."""


def under(read: Read[V], prefix: str) -> Read[V]:
    """Reads the parts of an encoding that stands within another."""
    return lambda name: read(f"{prefix}.{name}")


def inside(parts: Mapping[str, V], prefix: str) -> dict[str, V]:
    """The parts of an encoding within another, by their names in that."""
    return {f"{prefix}.{name}": part for name, part in parts.items()}
