"""Sums over rows: second moments, means and variances, how large numbers are, and two models side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qcc.compiler.observe.statistic import Rows, Statistic
from qcc.ir.graph.ops import Array
from qcc.ir.graph.windows import Windows
from qcc.passes.contract.magnitudes import BINS, Magnitudes

SAME = 1e-5  # of the largest number: float32, added up in the order of another size of batch
ROWS_AT_ONCE = 512  # that are multiplied: adding up a matrix costs as much as multiplying about a hundred rows


@dataclass
class GramSum(Statistic):
    """``X'X`` of rows that come in pieces, which are multiplied when there are enough; and how many there were."""

    rows: int = 0
    hidden: int = 0
    repeated: int = 0
    _total: Array | None = None
    _waiting: list[Array] = field(default_factory=list)
    _count: int = 0

    def add(self, rows: Rows) -> None:
        """More rows, each as often as it weighs; those that are not finite count as hidden."""
        rows = _finite(rows)
        self.rows += len(rows.array)
        self.hidden += rows.hidden
        self.repeated += len(rows.array) if rows.repeated else 0
        wide = rows.array.astype(np.float32, copy=False)
        self._waiting.append(wide if rows.weights is None else wide * np.sqrt(rows.weights, dtype=np.float32)[:, None])
        self._count += len(rows.array)
        if self._count >= ROWS_AT_ONCE:
            self._multiply()

    @property
    def total(self) -> Array:
        """The sum ``[size, size]``."""
        self._multiply()
        return np.zeros((0, 0), np.float32) if self._total is None else self._total

    def merge(self, other: "GramSum") -> None:
        """Add the sums."""
        self.rows += other.rows
        self.hidden += other.hidden
        self.repeated += other.repeated
        mine, its = self.total, other.total
        self._total = (mine + its if mine.size else its.copy()) if its.size else self._total

    def state(self) -> dict[str, Array]:
        """The sum, the counts, and the rows that wait: what goes on from here rounds as if it had never stopped."""
        empty = np.zeros((0, 0), np.float32)
        total = empty if self._total is None else self._total
        waiting = np.concatenate(self._waiting) if self._waiting else empty
        counts = np.array([self.rows, self.hidden, self.repeated], np.int64)
        return {"total": total, "waiting": waiting, "counts": counts}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take them over."""
        self.rows, self.hidden, self.repeated = (int(count) for count in state["counts"])
        self._total = state["total"] if state["total"].size else None
        self._waiting = [state["waiting"]] if state["waiting"].size else []
        self._count = len(state["waiting"])

    def _multiply(self) -> None:
        if not self._waiting:
            return
        flat = np.concatenate(self._waiting)
        product = flat.T @ flat
        self._waiting, self._count = [], 0
        if self._total is None:
            self._total = product
        else:
            self._total += product


@dataclass
class WindowSum(GramSum):
    """``X'X`` of windows that a convolution reads; its matrix multiplies them as a linear layer's does rows."""

    windows: Windows | None = None

    @property
    def text(self) -> str:
        """With the windows."""
        return f"{type(self).__name__} {self.windows}"

    def own_rows(self, array: Array) -> Array | None:
        """The windows."""
        return None if self.windows is None else self.windows.rows(array)

    def empty(self) -> "WindowSum":
        """Of the same windows."""
        return WindowSum(windows=self.windows)


@dataclass
class MagnitudeSum(Statistic):
    """How large the numbers are."""

    found: Magnitudes = field(default_factory=lambda: Magnitudes(np.zeros(BINS, np.int64), 0.0, 0.0))

    def add(self, rows: Rows) -> None:
        """Count the numbers of rows that weigh anything."""
        self.found += Magnitudes.of(rows.array if rows.weights is None else rows.array[rows.weights > 0])

    def merge(self, other: "MagnitudeSum") -> None:
        """Add the counts."""
        self.found += other.found

    def state(self) -> dict[str, Array]:
        """The counts of the bins, and the ends."""
        return {"counts": self.found.counts, "ends": np.array([self.found.lowest, self.found.highest])}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take them over."""
        lowest, highest = (float(end) for end in state["ends"])
        self.found = Magnitudes(state["counts"], lowest, highest)


@dataclass
class _Largest(Statistic):
    """The largest magnitudes of some places, as many as were seen."""

    largest: Array = field(default_factory=lambda: np.zeros(0, np.float32))

    def merge(self, other: "_Largest") -> None:
        """Those of another."""
        self.take(other.largest)

    def state(self) -> dict[str, Array]:
        """The magnitudes."""
        return {"largest": self.largest}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take them over."""
        self.largest = state["largest"]

    def take(self, found: Array) -> None:
        """More of them."""
        longest = max(len(found), len(self.largest))
        both = (np.pad(one, (0, longest - len(one))) for one in (found, self.largest))
        self.largest = np.maximum(*both)


@dataclass
class LargestSum(_Largest):
    """The largest magnitude of each channel.

    Args:
        axis: of the channels; the last is that of rows.
    """

    axis: int = -1

    @property
    def text(self) -> str:
        """With the axis."""
        return f"{type(self).__name__} {self.axis}"

    def own_rows(self, array: Array) -> Array | None:
        """Those along another axis."""
        return None if self.axis == -1 else np.moveaxis(array, self.axis, -1).reshape(-1, array.shape[self.axis])

    def add(self, rows: Rows) -> None:
        """More rows that weigh anything."""
        kept = rows.array if rows.weights is None else rows.array[rows.weights > 0]
        self.take(np.abs(kept).max(0, initial=0).astype(np.float32))

    def empty(self) -> "LargestSum":
        """Along the same axis."""
        return LargestSum(axis=self.axis)


@dataclass
class PositionSum(_Largest):
    """The largest magnitude at each place of a text, along the last axis but one; hidden places among them."""

    def own_rows(self, array: Array) -> Array:
        """A row a sample, of so many tokens."""
        largest: Array = np.abs(array).max(-1, initial=0).reshape(-1, array.shape[-2])
        return largest

    def add(self, rows: Rows) -> None:
        """More samples, of any length."""
        self.take(rows.array.max(0, initial=0).astype(np.float32))

    @property
    def found(self) -> Magnitudes:
        """As a layer's range goes by it."""
        ends = float(self.largest.max(initial=0))
        return Magnitudes(np.zeros(BINS, np.int64), -ends, ends, positions=self.largest)


@dataclass
class FirstTokens(Statistic):
    """What stands at the first tokens, and how far it is from that in any sample.

    Args:
        count: of the tokens.
    """

    count: int = 1
    _first: Array | None = None
    _apart: float = 0.0

    @property
    def text(self) -> str:
        """With their number."""
        return f"{type(self).__name__} {self.count}"

    def own_rows(self, array: Array) -> Array:
        """A row a sample; of none that is shorter."""
        found = array[..., : self.count, :]
        size = self.count * array.shape[-1]
        return found.reshape(-1, size) if found.shape[-2] == self.count else np.full((1, size), np.nan, np.float32)

    def add(self, rows: Rows) -> None:
        """More samples."""
        for row in rows.array:
            if self._first is None:
                self._first = row.astype(np.float32)
            self._apart = float(np.maximum(self._apart, np.abs(row - self._first).max(initial=0)))

    def merge(self, other: "FirstTokens") -> None:
        """Those of another."""
        if other._first is not None:
            self.add(Rows(other._first[None]))
            self._apart = float(np.maximum(self._apart, other._apart))

    def state(self) -> dict[str, Array]:
        """The tokens and the distance."""
        return {
            "first": np.zeros(0, np.float32) if self._first is None else self._first,
            "apart": np.array(self._apart),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take them over."""
        self._first = state["first"] if state["first"].size else None
        self._apart = float(state["apart"])

    def empty(self) -> "FirstTokens":
        """Of as many tokens."""
        return FirstTokens(self.count)

    @property
    def constant(self) -> Array | None:
        """The tokens ``[count, channel]``, if they are the same in all samples, but for how a runtime adds up."""
        if self._first is None or not self._apart <= SAME * float(np.abs(self._first).max(initial=0)):
            return None
        return self._first.reshape(self.count, -1)


@dataclass
class PairSum(Statistic):
    """Of rows ``x`` beside rows ``y``: all that a straight line from one to the other rests on.

    For a value of a compressed graph beside that of the float one, ``x'x`` and ``x'y`` tell the best correction of a
    layer that reads it, and means and variances the best change of bias and gain.

    Args:
        weight: of all rows.
        rows: how many.
    """

    weight: float = 0.0
    rows: int = 0
    _sums: dict[str, Array] = field(default_factory=dict)

    def add(self, rows: Rows) -> None:
        """More pairs of rows."""
        assert rows.beside is not None
        x, y = rows.array.astype(np.float64), rows.beside.astype(np.float64)
        weights = np.ones(len(x)) if rows.weights is None else rows.weights.astype(np.float64)
        heavy = x * weights[:, None]
        self.weight += float(weights.sum())
        self.rows += len(x)
        found = {"xx": heavy.T @ x, "xy": heavy.T @ y, "x": heavy.sum(0), "y": weights @ y, "yy": weights @ y**2}
        self._take(found)

    def merge(self, other: "PairSum") -> None:
        """Add the sums."""
        self.weight += other.weight
        self.rows += other.rows
        self._take(other._sums)

    def state(self) -> dict[str, Array]:
        """The sums."""
        return {**self._sums, "counts": np.array([self.weight, self.rows])}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take them over."""
        self.weight, self.rows = float(state["counts"][0]), int(state["counts"][1])
        self._sums = {name: array for name, array in state.items() if name != "counts"}

    def mean(self, name: str) -> Array:
        """The mean over all rows of ``x``, ``y``, their products ``xx`` and ``xy``, or the squares ``yy``."""
        return np.asarray(self._sums[name] / (self.weight or 1.0))

    @property
    def variance(self) -> tuple[Array, Array]:
        """Of each channel of ``x`` and of ``y``."""
        mine = np.diag(self.mean("xx")) - self.mean("x") ** 2
        return np.maximum(mine, 0), np.maximum(self.mean("yy") - self.mean("y") ** 2, 0)

    @property
    def covariance(self) -> Array:
        """Between each channel of ``x`` and the same one of ``y``, where both have as many."""
        return np.asarray(np.diag(self.mean("xy")) - self.mean("x") * self.mean("y"))

    def _take(self, found: Mapping[str, Array]) -> None:
        for name, array in found.items():
            self._sums[name] = self._sums[name] + array if name in self._sums else array.copy()


def _finite(rows: Rows) -> Rows:
    """The rows without those that are not finite: behind them the model masks, or its output would not be either."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(rows.array.sum()):
            return rows
    kept = np.isfinite(rows.array).all(-1)
    weights = None if rows.weights is None else rows.weights[kept]
    return Rows(rows.array[kept], rows.hidden + int(kept.size - kept.sum()), weights, repeated=rows.repeated)
