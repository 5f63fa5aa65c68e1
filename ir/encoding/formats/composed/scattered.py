"""Weights that are left out one by one: some of every few inputs stay, or some of each row."""

from abc import abstractmethod
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
from qcc.ir.encoding.format import Composition, Limits, Share, check_share, least_share, percent
from qcc.ir.encoding.grid import TableGrid
from qcc.ir.encoding.pruning import MOST_ROUNDS, USUAL, By, losses, told
from qcc.ir.encoding.swaps import Curve, exchanged

LARGEST_RUN = 1 << 12  # inputs of which some stay


@dataclass(frozen=True)
class Scattered(Encoding):
    """A matrix of which as many weights of each row are kept, side by side; a bit says of each weight whether it is.

    Args:
        inner: how those that are kept are stored ``[out, kept]``.
        by: what tells how much a weight matters.
        effort: rounds of exchanges.
    """

    inner: Encoding
    by: By
    effort: int

    @abstractmethod
    def run(self, columns: int) -> tuple[int, int]:
        """Of how many neighbours in a row how many are kept; of the last, which may be fewer, as many or all."""

    @property
    def within(self) -> tuple[Encoding, ...]:
        """How kept weights are stored."""
        return (self.inner,)

    @property
    def learns(self) -> bool:
        """What data tells says what stays."""
        return self.by != "magnitude" or self.inner.learns

    @property
    def told(self) -> str:
        """The last arguments as the language spells them."""
        by = told(self.by, self.effort)
        return by if self.inner == FLOAT32 else f"{by}, {self.inner.text}"

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Those of the kept weights, and a bit for each weight if some are gone."""
        kept = self._kept(shape[1])
        found = inside(self.inner.parts((shape[0], kept)), "kept")
        return found if kept == shape[1] else {**found, "stays": Part(shape, 1, whole=True)}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """Each weight is the next of those that are kept, or zero."""
        kept = self._kept(shape[1])
        stored = ops.decode(self.inner, under(read, "kept"), (shape[0], kept))
        if kept == shape[1]:
            return stored
        weights = shape[0] * shape[1]
        place = ops.ranks(ops.numbers(read("stays"), STAYS, (weights,)))
        flat = ops.concat((ops.zeros((1,)), ops.reshape(stored, (shape[0] * kept,))), 0)
        return ops.reshape(ops.take(flat, place, 0), shape)

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """The weights whose loss would cost most are kept, and make up for the others."""
        stays = self._stays(losses(matrix, self.by, fitter, (1, 1)))
        stays, meant, curve = exchanged(matrix, stays, (1, 1), self.run(matrix.shape[1])[1], fitter, self.effort)
        kept = meant[stays].reshape(matrix.shape[0], self._kept(matrix.shape[1]))
        return FittedScattered(self.inner.fit(kept, fitter.blind()), stays, meant, curve)

    def _kept(self, columns: int) -> int:
        """Of a row."""
        count, every = self.run(columns)
        return columns // every * count + min(columns % every, count)

    def _stays(self, cost: np.ndarray) -> np.ndarray:
        """Those that cost most of each run; of equal ones the first."""
        rows, columns = cost.shape
        count, every = self.run(columns)
        filled = np.pad(cost, ((0, 0), (0, -columns % every)), constant_values=-1.0).reshape(rows, -1, every)
        stays = np.zeros(filled.shape, bool)
        np.put_along_axis(stays, np.argsort(-filled, axis=2, kind="stable")[:, :, :count], True, 2)
        return stays.reshape(rows, -1)[:, :columns]


STAYS = TableGrid("int1")
"""Of a bit: below zero for what is gone, above for what stays."""


@dataclass(frozen=True)
class SomeOfEvery(Scattered):
    """So many of every so many neighbours are kept.

    Args:
        count: that are kept.
        every: of which.

    Raises:
        ValueError: there are not as many.
    """

    count: int
    every: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.every or not 2 <= self.every <= LARGEST_RUN:
            raise ValueError(f"`of` keeps 1 or more of 2 to {LARGEST_RUN:,} inputs, not {self.count} of {self.every}")

    @property
    def text(self) -> str:
        """The two numbers and what is within."""
        return f"of(count = {self.count}, every = {self.every}{self.told})"

    @property
    def stays(self) -> tuple[float, float]:
        """As asked, or more in a last run that is shorter, and a bit for each weight."""
        return self.count / self.every, float(self.count < self.every)

    def run(self, columns: int) -> tuple[int, int]:
        """As asked."""
        return self.count, self.every


@dataclass(frozen=True)
class ShareOfRow(Scattered):
    """A share of each row is kept.

    Args:
        keep: the share.

    Raises:
        ValueError: nothing is kept.
    """

    keep: float

    def __post_init__(self) -> None:
        check_share(self.keep)

    @property
    def stays(self) -> tuple[float, float]:
        """As asked, rounded, and a bit for each weight."""
        return least_share(self.keep), float(self.keep < 1)

    @property
    def text(self) -> str:
        """The share and what is within."""
        return f"unstructured(keep = {percent(self.keep)}{self.told})"

    def run(self, columns: int) -> tuple[int, int]:
        """Of the whole row."""
        return max(round(self.keep * columns), 1), columns


class FittedScattered(Fitted):
    """The kept weights, and which they are."""

    def __init__(self, kept: Fitted, stays: np.ndarray, meant: np.ndarray, curve: Curve) -> None:
        self._kept, self._stays, self._meant, self.curve = kept, stays, meant, curve
        self._at = np.cumsum(stays, axis=1, dtype=np.intp) - 1

    def meant(self, matrix: np.ndarray) -> np.ndarray:
        """With what stays in place of what is gone."""
        return self._meant

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """What is kept by its place among those; all else is zero."""
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop)
        here = self._stays[rows, columns]
        found = np.zeros_like(values)
        found[here] = self._kept.round(rows[here], self._at[rows, columns][here], values[here])
        return found

    def settled(self, asked: Encoding) -> Encoding:
        """With what the kept weights are stored in."""
        assert isinstance(asked, Scattered)
        return replace(asked, inner=self._kept.settled(asked.inner))

    def parts(self) -> dict[str, np.ndarray]:
        """Those of the kept weights, and the bits."""
        found = inside(self._kept.parts(), "kept")
        return found if self._stays.all() else {**found, "stays": self._stays.astype(np.uint8)}


@dataclass(frozen=True)
class KeptOfEvery(Composition):
    """Some of every few inputs of an output are kept, as in ``of(2, 4)``; all others are zero.

    What is kept is stored side by side, and a bit for each weight says where it belongs. Which weights are kept, and
    that those make up for the others, is as with `blocks`. A last run that is shorter keeps as many, or all.

    Args:
        count: the inputs that are kept.
        every: of how many neighbours.
        by: what tells which, see `blocks`.
        effort: rounds of exchanges, see `blocks`.
        inner: how kept weights are stored; as they are by default.
    """

    keyword: ClassVar[str] = "of"
    filled: ClassVar[str] = "inner"

    count: Annotated[int, Limits(1, LARGEST_RUN)]
    every: Annotated[int, Limits(2, LARGEST_RUN)]
    by: By = USUAL
    effort: Annotated[int, Limits(0, MOST_ROUNDS)] = 0
    inner: Encoding = FLOAT32

    def encoding(self) -> Encoding:
        """By its arguments."""
        return SomeOfEvery(self.inner, self.by, self.effort, self.count, self.every)


@dataclass(frozen=True)
class Unstructured(Composition):
    """A share of each output's weights is kept, wherever they are; all others are zero.

    It is the least that leaving weights out can cost, to compare others with: no processor gains by it. What is kept is
    stored as with `of`.

    Args:
        keep: the share of each output's weights.
        by: what tells which, see `blocks`.
        effort: rounds of exchanges, see `blocks`.
        inner: how kept weights are stored; as they are by default.
    """

    keyword: ClassVar[str] = "unstructured"
    filled: ClassVar[str] = "inner"

    keep: Share
    by: By = USUAL
    effort: Annotated[int, Limits(0, MOST_ROUNDS)] = 0
    inner: Encoding = FLOAT32

    def encoding(self) -> Encoding:
        """By its arguments."""
        return ShareOfRow(self.inner, self.by, self.effort, self.keep)
