"""Codebooks: tables of numbers, or of tuples of them, that are learned from the weights that they stand for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
)
from qcc.ir.encoding.format import Composition, Limits
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.errors import Refused

MOST_LEVELS = 256
LARGEST_TUPLE = 8
LEARNED = 1 << 14  # tuples that a table is learned from
ROUNDS = 12  # of k-means
SPREADS = (1.0, 3**0.5)  # of numbers to begin with beside quantiles: the best for normal weights are the second
CHUNK = 1 << 20  # distances that are compared at once
LIMIT = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Codebook(Encoding):
    """Codes of tuples of neighbouring columns, a table of the tuples, and a scale for each row or group of columns.

    Args:
        levels: of the table, a power of two.
        size: of a tuple; the last one of a row may reach beyond it.
        group: columns that share a scale; 0 for whole rows.

    Raises:
        ValueError: levels and size are none that are stored.
    """

    levels: int
    size: int = 1
    group: int = 0

    def __post_init__(self) -> None:
        if not 4 <= self.levels <= MOST_LEVELS or self.levels & (self.levels - 1):
            raise ValueError(f"a table has 4, 8, 16 and so on to {MOST_LEVELS} levels, not {self.levels}")
        if self.size not in (1, 2, 4, 8):
            raise ValueError(f"a code stands for 1, 2, 4 or 8 weights, not {self.size}")

    @property
    def text(self) -> str:
        """The levels, and what else is not as usual."""
        size = f", size = {self.size}" if self.size > 1 else ""
        return f"codebook({self.levels}{size}{f', group = {self.group}' if self.group else ''})"

    @property
    def rows_apart(self) -> bool:
        """A row has its own codes and scales, and the table goes for all."""
        return True

    @property
    def grid(self) -> IntGrid:
        """Of the codes: those of the second half of the table count from its end."""
        return IntGrid(self.levels.bit_length() - 1)

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """The table, scales and codes."""
        return {
            "table": Part((self.levels, self.size), 16, np.float16, whole=True),
            "scale": Part((shape[0], -(-shape[1] // self.columns(shape[1]))), 16, np.float16),
            "codes": Part((shape[0], -(-shape[1] // self.size)), self.grid.bits),
        }

    def columns(self, count: int) -> int:
        """How many of so many columns share a scale."""
        return min(self.group or count, count)

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """The tuples by their codes, times the scales."""
        return self.decode_rows(ops, read, shape[:1], shape)

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """The same of each row."""
        columns, count = shape[1], -(-shape[1] // self.size)
        index = ops.numbers(read("codes"), self.grid, (*lead, count))
        values = ops.reshape(ops.take(ops.floats(read("table")), index, 0), (*lead, count * self.size))
        if count * self.size > columns:
            values = ops.cut(values, (*lead, columns))
        scale, together = ops.floats(read("scale")), self.columns(columns)
        return ops.times(values, scale if together == columns else ops.spread(scale, -1, together, columns))

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """Scales are root mean squares first, the table is learned, and scales are fitted to it in turn.

        Raises:
            Refused: fp16 does not hold the scales.
        """
        together = self.columns(matrix.shape[1])
        starts = np.arange(0, matrix.shape[1], together)
        counts = np.diff([*starts, matrix.shape[1]])
        largest = float(np.abs(matrix).max())
        unit = np.float64(largest or 1)
        scale = unit * np.sqrt(np.add.reduceat(np.square(matrix / unit, dtype=np.float64), starts, 1) / counts)
        weights = fitter.weights(matrix.shape[1])
        found = FittedCodebook(self, matrix, scale, weights)
        for _ in range(2):
            tuples = found.decoded(1.0).astype(np.float64) * weights
            inner = np.add.reduceat(tuples * (matrix / unit), starts, 1)
            energy = np.add.reduceat(tuples * found.decoded(1.0), starts, 1)
            scale = np.where(energy > 0, unit * inner / np.where(energy > 0, energy, 1), scale)
            found.rescale(matrix, scale)
        return found


class FittedCodebook(Fitted):
    """Codes under a fixed table and scales."""

    def __init__(self, encoding: Codebook, matrix: np.ndarray, scale: np.ndarray, weights: np.ndarray) -> None:
        self._encoding, self.width = encoding, encoding.size
        self._columns = matrix.shape[1]
        self._together = encoding.columns(self._columns)
        self._middle = encoding.levels // 2
        self._scale = stored_scale(scale)
        tuples = self._tuples(matrix).reshape(-1, encoding.size)
        weighted = np.pad(weights, (0, -len(weights) % encoding.size)).reshape(-1, encoding.size).mean(1)
        weighted = np.tile(weighted, len(matrix)) * np.repeat(
            np.square(self._scale.astype(np.float64)).mean(1), len(tuples) // len(matrix)
        )
        self._table = _learned(tuples, weighted, encoding.levels).astype(np.float16)
        self._at = _nearest(tuples, self._table.astype(np.float32)).reshape(len(matrix), -1)

    def rescale(self, matrix: np.ndarray, scale: np.ndarray) -> None:
        """Take other scales, and the nearest codes under them."""
        self._scale = stored_scale(scale)
        tuples = self._tuples(matrix).reshape(-1, self.width)
        self._at = _nearest(tuples, self._table.astype(np.float32)).reshape(len(matrix), -1)

    def decoded(self, scale: float | None = None) -> np.ndarray:
        """What is stored, with one scale for all if it is given."""
        table = self._table.astype(np.float32)
        values = table[self._at].reshape(len(self._at), -1)[:, : self._columns]
        return np.asarray(values * (self._spread() if scale is None else scale))

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """By the table, or where a code stands for several columns, what stands there: no column chooses alone."""
        scale = self._scale[rows, columns // self._together].astype(np.float32)
        table = self._table.astype(np.float32)
        if self.width > 1:
            return np.asarray(table[self._at[rows, columns // self.width], columns % self.width] * scale)
        at = _nearest(over(values, scale)[:, None], table)
        self._at[rows, columns] = at
        return np.asarray(table[at, 0] * scale)

    def round_tuple(self, rows: slice, start: int, values: np.ndarray) -> np.ndarray:
        """By the nearest tuple."""
        columns = np.arange(start, start + len(values))
        scale = self._scale[rows][:, columns // self._together].astype(np.float32)
        table = self._table.astype(np.float32)[:, : len(values)]
        at = _nearest(over(values.T, scale), table)
        self._at[rows, start // self.width] = at
        return np.asarray((table[at] * scale).T)

    def parts(self) -> dict[str, np.ndarray]:
        """The table, scales and codes."""
        return {"table": self._table, "scale": self._scale, "codes": (self._at ^ self._middle).astype(np.uint8)}

    def _spread(self) -> np.ndarray:
        return np.repeat(self._scale.astype(np.float32), self._together, 1)[:, : self._columns]

    def _tuples(self, matrix: np.ndarray) -> np.ndarray:
        values = over(matrix, self._spread())
        return np.pad(values, ((0, 0), (0, -self._columns % self.width)))


@dataclass(frozen=True)
class LearnedTable(Composition):
    """Numbers, or tuples of 2, 4 or 8 neighbouring weights, from a table that is learned for each weight.

    ``codebook(16)`` has 4 bits a weight, ``codebook(256, size = 4)`` 2: four weights have one code. The table is
    found by k-means on weights over their scale, an error counting as much as calibration data says that the input
    matters. It is stored as fp16, which in small weights is not nothing. `gptq` chooses tuples whole, and feeds their
    errors on.

    Args:
        levels: of the table: 4 to 256, a power of two.
        size: weights that one code stands for: 1, 2, 4 or 8.
        group: inputs that share a scale, in fp16; 0 for all inputs of an output.

    Source: Product quantisation, Jegou et al. 2011; with GPTQ's feedback, GPTVQ, van Baalen et al. 2024
    (arXiv:2402.15319), section 3.
    """

    keyword: ClassVar[str] = "codebook"

    levels: Annotated[int, Limits(4, MOST_LEVELS)]
    size: Annotated[int, Limits(1, LARGEST_TUPLE)] = 1
    group: Annotated[int, Limits(0, 1 << 20)] = 0

    def encoding(self) -> Encoding:
        """By its arguments."""
        return Codebook(self.levels, self.size, self.group)


def stored_scale(scale: np.ndarray) -> np.ndarray:
    """Scales as they are stored.

    Raises:
        Refused: fp16 does not hold the largest.
    """
    largest = float(np.abs(scale).max())
    if largest > LIMIT or 0 < largest < float(np.finfo(np.float16).tiny):
        raise Refused(f"a scale of {largest:.3g} {'does not fit' if largest > 1 else 'is lost in'} fp16")
    return scale.astype(np.float16)


def over(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Values over scales, none where the scale is zero."""
    found = np.zeros(values.shape, np.float32)
    np.divide(values, scale, out=found, where=scale != 0)
    return found


def _learned(tuples: np.ndarray, weights: np.ndarray, levels: int) -> np.ndarray:
    """The centres that k-means finds for some of the tuples ``[levels, size]``; the same ones every time."""
    random = np.random.default_rng(0)
    if len(tuples) > LEARNED:
        some = np.sort(random.choice(len(tuples), LEARNED, replace=False))
        tuples, weights = tuples[some], weights[some]
    if tuples.shape[1] > 1:
        centres = tuples[random.choice(len(tuples), levels, replace=len(tuples) < levels)]
        return _settled(tuples, weights, centres)[1]
    centres = np.quantile(tuples, (np.arange(levels) + 0.5) / levels, 0)
    return min((_settled(tuples, weights, centres * spread) for spread in SPREADS), key=lambda found: found[0])[1]


def _settled(tuples: np.ndarray, weights: np.ndarray, centres: np.ndarray) -> tuple[float, np.ndarray]:
    """Centres after some rounds of k-means, and what they lose."""
    levels = len(centres)
    for _ in range(ROUNDS):
        at = _nearest(tuples, centres.astype(np.float32))
        mass = np.bincount(at, weights, levels)[:, None]
        sums = np.stack([np.bincount(at, weights * one, levels) for one in tuples.T], 1)
        centres = np.where(mass > 0, sums / np.where(mass > 0, mass, 1), centres)
    lost = np.square(tuples - centres[_nearest(tuples, centres.astype(np.float32))]).sum(1)
    return float(np.vdot(lost, weights)), centres


def _nearest(tuples: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The number of the nearest tuple of a table."""
    found = np.empty(len(tuples), np.intp)
    half = np.square(table).sum(1) / 2
    for part in _parts(len(tuples), max(CHUNK // len(table), 1)):
        found[part] = np.argmax(tuples[part] @ table.T - half, 1)
    return found


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
