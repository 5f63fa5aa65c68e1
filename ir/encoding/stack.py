"""Sums: a matrix as the sum of what several encodings hold, each of what those before it left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.ir.encoding.algebra import Encoding, Leaf, MatrixShape, Ops, Part, Read, V, inside, under
from qcc.ir.encoding.reference import NUMPY


@dataclass(frozen=True)
class Stack(Encoding):
    """The sum of its levels, of which the first alone is a rough matrix, and each further one a correction.

    Source: BitStack, Wang et al. 2024 (arXiv:2410.23918), section 3, for levels of the same kind.
    """

    levels: tuple[Encoding, ...]

    @property
    def text(self) -> str:
        """Its levels in order."""
        return f"stack({', '.join(level.text for level in self.levels)})"

    @property
    def rows_apart(self) -> bool:
        """Where all levels have their rows apart."""
        return all(level.rows_apart for level in self.levels)

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Those of the levels, numbered."""
        found: dict[str, Part] = {}
        for at, level in enumerate(self.levels):
            found |= inside(level.parts(shape), str(at))
        return found

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """The sum."""
        first, *others = (ops.decode(level, under(read, str(at)), shape) for at, level in enumerate(self.levels))
        for other in others:
            first = ops.add(first, other)
        return first

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], columns: int) -> V:
        """The sum."""
        levels = enumerate(self.levels)
        first, *others = (ops.decode_rows(level, under(read, str(at)), lead, columns) for at, level in levels)
        for other in others:
            first = ops.add(first, other)
        return first

    def encode(self, matrix: np.ndarray, leaf: Leaf) -> dict[str, np.ndarray]:
        """Level by level, what is left."""
        found: dict[str, np.ndarray] = {}
        for at, level in enumerate(self.levels):
            parts = level.encode(matrix, leaf)
            matrix = matrix - level.decode(NUMPY, parts.__getitem__, (matrix.shape[0], matrix.shape[1]))
            found |= inside(parts, str(at))
        return found
