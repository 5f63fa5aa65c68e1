"""Sums: a matrix as the sum of what several encodings hold, each of what those before it left."""

from collections.abc import Mapping, Sequence
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
from qcc.ir.encoding.encoded import leaves, remainder
from qcc.ir.encoding.format import MOST_LEAVES, Composition, Limits
from qcc.ir.encoding.formats.composed.signs import Signs
from qcc.ir.encoding.reference import NUMPY

LEVEL = Signs()


@dataclass(frozen=True)
class Stack(Encoding):
    """The sum of its levels, of which the first alone is a rough matrix, and each further one a correction.

    Raises:
        ValueError: there are none, or too many.
    """

    levels: tuple[Encoding, ...]

    def __post_init__(self) -> None:
        count = sum(1 for level in self.levels for _ in leaves(level))
        if not 0 < count <= MOST_LEAVES:
            raise ValueError(f"a sum has 1 to {MOST_LEAVES} parts, not {count}")

    @property
    def text(self) -> str:
        """Its levels in order; how many, if all are alike."""
        first, *others = self.levels
        if others and all(other == first for other in others):
            return f"stack(count = {len(self.levels)}, {first.text})"
        return f"stack({', '.join(level.text for level in self.levels)})"

    @property
    def within(self) -> tuple[Encoding, ...]:
        """The levels."""
        return self.levels

    @property
    def summands(self) -> tuple[Encoding, ...]:
        """The levels."""
        return self.levels

    def summing(self, summands: tuple[Encoding, ...]) -> Encoding:
        """Of other levels."""
        return Stack(summands)

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
        return ops.total([ops.decode(level, under(read, str(at)), shape) for at, level in enumerate(self.levels)])

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """The sum."""
        levels = enumerate(self.levels)
        return ops.total([ops.decode_rows(level, under(read, str(at)), lead, shape) for at, level in levels])

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """Level by level, what is left."""
        found: list[Fitted] = []
        whole = matrix
        for level in self.levels:
            found.append(level.fit(matrix, fitter))
            if len(found) < len(self.levels):
                parts = found[-1].parts()
                stored = found[-1].settled(level)
                decoded = stored.decode(NUMPY, parts.__getitem__, (matrix.shape[0], matrix.shape[1]))
                matrix = remainder(matrix, decoded, whole)
        return FittedStack(found)


class FittedStack(Fitted):
    """The levels; what is fixed among them comes off first, whatever its place."""

    def __init__(self, levels: Sequence[Fitted]) -> None:
        self._levels = levels

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """Level by level, what is left."""
        left = values
        for level in sorted(self._levels, key=lambda one: not one.fixed):
            left = left - level.round(rows, columns, left)
        return np.asarray(values - left)

    def settled(self, asked: Encoding) -> Encoding:
        """Each level."""
        assert isinstance(asked, Stack)
        return replace(
            asked, levels=tuple(one.settled(level) for one, level in zip(self._levels, asked.levels, strict=True))
        )

    def parts(self) -> dict[str, np.ndarray]:
        """Those of the levels, numbered."""
        found: dict[str, np.ndarray] = {}
        for at, level in enumerate(self._levels):
            found |= inside(level.parts(), str(at))
        return found


@dataclass(frozen=True)
class SumOfLevels(Composition):
    """A weight as the sum of several encodings, each of what those before it left.

    ``stack(8)`` has 8 levels of `signs`, a little more than a bit each. Every level makes the weight better, and what
    is left without the last ones is whole: `qcc trim` makes one file as small as wanted.

    Args:
        count: how often the levels are repeated.
        levels: how each is stored, ``signs()`` if none is given.

    Source: BitStack, Wang et al. 2024 (arXiv:2410.23918), section 3, for levels of the same kind.
    """

    keyword: ClassVar[str] = "stack"

    count: Annotated[int, Limits(1, MOST_LEAVES)] = 1
    levels: tuple[Encoding, ...] = (LEVEL,)

    def encoding(self) -> Encoding:
        """By its arguments."""
        return Stack(self.levels * self.count)
