"""Tables whose rows share what is stored: several rows become one, and a small number of each says which."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

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
from qcc.ir.encoding.format import Composition, numbers_below
from qcc.ir.encoding.formats.composed.stack import Stack
from qcc.ir.encoding.reference import NUMPY
from qcc.ir.encoding.tables.clusters import means
from qcc.ir.encoding.tables.lookups import NO_LOOKUPS, Lookups

Tied = Literal["refuse", "expand"]


class Merging(ABC):
    """Which rows become one. Compares and hashes by value."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The format's keyword and its arguments, without the closing bracket."""

    @abstractmethod
    def count(self, rows: int) -> int:
        """How many are left of so many, 1 at least; about, where that is `open`."""

    @property
    def open(self) -> bool:
        """How many are left depends on the table."""
        return False

    @property
    def sources(self) -> frozenset[str]:
        """See `Encoding.sources`."""
        return frozenset()

    @abstractmethod
    def check_lookups(self, lookups: Mapping[str, Lookups]) -> None:
        """See `Encoding.check_lookups`."""

    @abstractmethod
    def labels(self, matrix: np.ndarray, lookups: Mapping[str, Lookups]) -> np.ndarray:
        """For each row the number of the one that it becomes, from 0 on; none of these is left out where it is open.

        Raises:
            Refused: nothing tells.
        """

    @property
    @abstractmethod
    def least_left(self) -> float:
        """The share of rows that are left at least, as far as nothing is known of the table."""

    def warning(self, rows: int, count: int, lookups: Mapping[str, Lookups]) -> str:
        """See `Encoding.warning`, for so many rows of which so many are left."""
        return ""

    def weights(self, rows: int, lookups: Mapping[str, Lookups]) -> np.ndarray:
        """What each row counts where several become their mean."""
        return np.ones(rows)


@dataclass(frozen=True)
class Merged(Encoding):
    """A map ``[out]`` of each row to the row of a smaller matrix ``[count, in]``, which an inner encoding stores.

    A row that shares its place with no other stays what it was; others become their mean.

    Args:
        how: which rows become one.
        inner: how those that are left are stored.
        tied: a table that is multiplied with as well is refused, or what multiplies with it gets all rows.
        settled: how many rows are left, where that was open and is not any more; 0 where it is as ``how`` says.
    """

    how: Merging
    inner: Encoding = FLOAT32
    tied: Tied = "refuse"
    settled: int = 0

    @property
    def text(self) -> str:
        """Which rows become one, and how they are stored."""
        tied = "" if self.tied == "refuse" else f", tied = {self.tied}"
        inner = "" if self.inner == FLOAT32 else f", {self.inner.text}"
        settled = f", rows = {self.settled}" if self.settled else ""
        return f"{self.how.text}{settled}{tied}{inner})"

    @property
    def within(self) -> tuple[Encoding, ...]:
        """How rows that are left are stored."""
        return (self.inner,)

    @property
    def open(self) -> bool:
        """Where it is not told how many rows are left."""
        return (self.how.open and not self.settled) or super().open

    @property
    def sources(self) -> frozenset[str]:
        """Those of what says which rows become one."""
        return self.how.sources | super().sources

    @property
    def merges(self) -> bool:
        """Unless all rows are wanted where the table is multiplied with."""
        return self.tied == "refuse" or super().merges

    def check_lookups(self, lookups: Mapping[str, Lookups]) -> None:
        """See `Encoding.check_lookups`."""
        self.how.check_lookups(lookups)
        super().check_lookups(lookups)

    @property
    def stays(self) -> tuple[float, float]:
        """What is told of rows; they may be so long that the map is nothing beside them."""
        return self.how.least_left, 0.0

    def note(self, shape: MatrixShape) -> str:
        """How many rows are left, and what the map takes."""
        size = self.parts(shape)["map"].size_bits // 8
        return f"{self.count(shape[0]):,} of {shape[0]:,} rows are left, the map takes {size:,} bytes"

    def warning(self, shape: MatrixShape, lookups: Mapping[str, Lookups]) -> str:
        """What it did to rows of which the lookups tell."""
        return self.how.warning(shape[0], self.count(shape[0]), lookups)

    @property
    def rows_apart(self) -> bool:
        """Where those that are left have theirs apart."""
        return self.inner.rows_apart

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """The map, and those of the rows that are left."""
        count = self.count(shape[0])
        kept = self.inner.parts((count, shape[1]))
        apart = {name for name, part in kept.items() if self.rows_apart and (part.apart or part.is_of_rows(count))}
        parts = {name: replace(part, whole=True, apart=name in apart) for name, part in kept.items()}
        return {"map": numbers_below(count, shape[:1]), **inside(parts, "kept")}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """The rows that are left, each as often as the map says."""
        kept = ops.decode(self.inner, under(read, "kept"), (self.count(shape[0]), shape[1]))
        return ops.take(kept, read("map"), 0)

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """The same of the rows that are asked for: only those are decoded."""
        index, count = read("map"), self.count(shape[0])
        parts = self.inner.parts((count, shape[1]))

        def kept(name: str) -> V:
            held = read(f"kept.{name}")
            return ops.rows(held, index, lead) if parts[name].is_of_rows(count) else held

        return ops.decode_rows(self.inner, kept, lead, (count, shape[1]))

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """Means of rows, as good as the inner encoding stores them.

        Raises:
            Refused: nothing tells which rows become one.
        """
        lookups = {name: one for name, one in fitter.lookups.items() if len(one.counts) == len(matrix)}
        labels = self.how.labels(matrix, lookups)
        settled = replace(self, settled=int(labels.max()) + 1) if self.how.open else self
        count = settled.count(len(matrix))
        table = means(matrix, labels, count, self.how.weights(len(matrix), lookups))
        return FittedMerged(settled, self.inner.fit(table, replace(fitter, lookups=NO_LOOKUPS)), labels, table.shape)

    def count(self, rows: int) -> int:
        """How many of so many are left."""
        return min(self.settled or max(self.how.count(rows), 1), max(rows, 1))


class FittedMerged(Fitted):
    """The rows that are left, which no row may change by itself, and the map."""

    fixed: ClassVar[bool] = True

    def __init__(self, encoding: Merged, kept: Fitted, labels: np.ndarray, shape: tuple[int, ...]) -> None:
        self._encoding, self._kept, self._labels, self._shape = encoding, kept, labels, (shape[0], shape[1])

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """What is stored there."""
        inner = self._kept.settled(self._encoding.inner)
        table = inner.decode(NUMPY, self._kept.parts().__getitem__, self._shape)
        return np.asarray(table[self._labels[rows], columns])

    def settled(self, asked: Encoding) -> Encoding:
        """With the number of rows that are left."""
        assert isinstance(asked, Merged)
        return replace(asked, settled=self._encoding.settled, inner=self._kept.settled(asked.inner))

    def parts(self) -> dict[str, np.ndarray]:
        """The map, and those of the rows that are left."""
        dtype = numbers_below(self._shape[0], ()).dtype
        return {"map": self._labels.astype(dtype), **inside(self._kept.parts(), "kept")}


class MergedRows(Composition):
    """A format of tables whose rows share what is stored; each says which."""

    filled: ClassVar[str] = "inner"
    fills: ClassVar[str] = "rows"

    inner: Encoding
    residual: Encoding | None
    tied: Tied

    @property
    @abstractmethod
    def merging(self) -> Merging:
        """Which rows become one."""

    def encoding(self) -> Encoding:
        """By its arguments: what is left of each row is added, where that is asked for."""
        merged = Merged(self.merging, self.inner, self.tied)
        return merged if self.residual is None else Stack((merged, self.residual))
