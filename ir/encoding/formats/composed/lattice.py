"""Tuples of eight from a lattice: 65,536 of them, by two codes of eight bits and two small tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Columns, Encoding, Fitted, Fitter, MatrixShape, Ops, Part, Read, Rows, V
from qcc.ir.encoding.format import Composition, Limits
from qcc.ir.encoding.formats.composed.codebook import over, stored_scale
from qcc.ir.encoding.grid import IntGrid

SIZE = 8  # of a tuple
CODES = IntGrid(8)
MIDDLE = 128
SHIFT = 0.25
NORM, LAST = 10, 12  # squared: all tuples of magnitudes up to the first, and some of the second
SPREADS = (0.75, 0.85, 0.95, 1.05, 1.15, 1.25)  # of a scale, around the root of the mean square
SEARCHED = 256  # rows that the search looks at: it finds one spread for all, and each scale is fitted to what follows
CHUNK = 1 << 12  # tuples that are compared at once


@dataclass(frozen=True)
class Tables:
    """What the two codes of a tuple stand for.

    Args:
        magnitudes: of the numbers ``[256, 8]``, those first whose signs an even number of minuses has.
        even: how many these are.
        first: the magnitudes, the last with the sign that makes the number of minuses right, and a one ``[256, 9]``.
        second: signs, the last the product of all others, and a shift ``[256, 9]``.
        added: puts the shift on all numbers ``[9, 8]``.
    """

    magnitudes: np.ndarray
    even: int
    first: np.ndarray
    second: np.ndarray
    added: np.ndarray


@lru_cache
def tables() -> Tables:
    """The tables: the same in all files."""
    every = (np.indices((4,) * SIZE).reshape(SIZE, -1).T + 0.5).astype(np.float32)
    norm = np.square(every).sum(1)
    order = np.lexsort((*every.T[::-1], norm))
    kept = order[norm[order] <= LAST][:256]
    odd = every[kept].sum(1) % 2
    magnitudes = every[kept[np.argsort(odd, kind="stable")]]
    odd = magnitudes.sum(1) % 2
    first = np.concatenate([magnitudes, np.ones((256, 1), np.float32)], 1)
    first[:, SIZE - 1] *= 1 - 2 * odd
    bits = (np.arange(256)[:, None] >> np.arange(SIZE)) & 1
    signs = 1 - 2.0 * bits[:, : SIZE - 1]
    second = np.concatenate([signs, signs.prod(1, keepdims=True), SHIFT * (1 - 2.0 * bits[:, SIZE - 1 :])], 1)
    added = np.concatenate([np.eye(SIZE), np.ones((1, SIZE))])
    return Tables(magnitudes, int((odd == 0).sum()), first, second.astype(np.float32), added.astype(np.float32))


@dataclass(frozen=True)
class Lattice(Encoding):
    """Two codes for eight neighbouring columns, and a scale for each row or group of columns.

    Args:
        group: columns that share a scale; 0 for whole rows.
    """

    group: int = 0

    @property
    def text(self) -> str:
        """With the group, if there is one."""
        return f"lattice({f'group = {self.group}' if self.group else ''})"

    @property
    def rows_apart(self) -> bool:
        """A row has its own codes and scales."""
        return True

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Scales and codes."""
        tuples = Part((shape[0], -(-shape[1] // SIZE)), CODES.bits)
        scale = Part((shape[0], -(-shape[1] // self.columns(shape[1]))), 16, np.float16)
        return {"scale": scale, "magnitudes": tuples, "signs": tuples}

    def columns(self, count: int) -> int:
        """How many of so many columns share a scale."""
        return min(self.group or count, count)

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """Magnitudes times signs, plus the shift, times the scales."""
        return self.decode_rows(ops, read, shape[:1], shape)

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """The same of each row."""
        columns, count, known = shape[1], -(-shape[1] // SIZE), tables()

        def tuples(name: str, table: np.ndarray) -> V:
            index = ops.numbers(read(name), CODES, (*lead, count))
            return ops.take(ops.constant(f"lattice.{name}", table), index, 0)

        product = ops.times(tuples("magnitudes", known.first), tuples("signs", known.second))
        moved = ops.multiply(product, ops.constant("lattice.shift", known.added))
        values = ops.reshape(moved, (*lead, count * SIZE))
        if count * SIZE > columns:
            values = ops.cut(values, (*lead, columns))
        scale, together = ops.floats(read("scale")), self.columns(columns)
        return ops.times(values, scale if together == columns else ops.spread(scale, -1, together, columns))

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """Scales in proportion to root mean squares, then fitted to their tuples; inputs count as data says.

        Raises:
            Refused: fp16 does not hold the scales.
        """
        return FittedLattice(self, matrix, fitter.weights(matrix.shape[1]))


class FittedLattice(Fitted):
    """Codes under fixed scales."""

    width = SIZE

    def __init__(self, encoding: Lattice, matrix: np.ndarray, weights: np.ndarray) -> None:
        self._columns = matrix.shape[1]
        self._together = encoding.columns(self._columns)
        starts = np.arange(0, self._columns, self._together)
        counts = np.diff([*starts, self._columns])
        unit = np.float64(np.abs(matrix).max() or 1)
        root = unit * np.sqrt(np.add.reduceat(np.square(matrix / unit, dtype=np.float64), starts, 1) / counts)
        stored_scale(root * SPREADS[-1])
        some = np.unique(np.linspace(0, len(matrix) - 1, min(len(matrix), SEARCHED)).astype(int))
        part = matrix[some]

        def lost(spread: float) -> float:
            scale = (root[some] * spread).astype(np.float16)
            noise = (self._tuples(self._codes(part, scale)) * self._spread(scale) - part) / unit
            return float((np.square(noise) * weights).sum())

        self._scale = stored_scale(root * min(SPREADS, key=lost))
        self._at = self._codes(matrix, self._scale)
        tuples = self._tuples(self._at)
        inner = np.add.reduceat(tuples * weights * (matrix / unit), starts, 1, dtype=np.float64)
        energy = np.add.reduceat(np.square(tuples) * weights, starts, 1, dtype=np.float64)
        self._scale = stored_scale(np.where(inner > 0, unit * inner / energy, root))
        self._at = self._codes(matrix, self._scale)

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """What stands there: no column chooses alone."""
        scale = self._scale[rows, columns // self._together].astype(np.float32)
        return np.asarray(_decoded(self._at[:, rows, columns // SIZE])[..., columns % SIZE] * scale)

    def round_tuple(self, rows: slice, start: int, values: np.ndarray) -> np.ndarray:
        """By the nearest tuple."""
        columns = np.arange(start, start + len(values))
        scale = self._scale[rows][:, columns // self._together].astype(np.float32)
        wanted = np.pad(over(values.T, scale), ((0, 0), (0, SIZE - len(values))))
        codes = nearest(wanted)
        self._at[:, rows, start // SIZE] = codes
        return np.asarray((_decoded(codes)[:, : len(values)] * scale).T)

    def parts(self) -> dict[str, np.ndarray]:
        """Scales and codes."""
        magnitudes, signs = self._at ^ np.uint8(MIDDLE)
        return {"scale": self._scale, "magnitudes": magnitudes, "signs": signs}

    def _spread(self, scale: np.ndarray) -> np.ndarray:
        return np.repeat(scale.astype(np.float32), self._together, 1)[:, : self._columns]

    def _codes(self, matrix: np.ndarray, scale: np.ndarray) -> np.ndarray:
        wanted = np.pad(over(matrix, self._spread(scale)), ((0, 0), (0, -self._columns % SIZE)))
        return nearest(wanted.reshape(-1, SIZE)).reshape(2, len(matrix), -1)

    def _tuples(self, codes: np.ndarray) -> np.ndarray:
        return np.asarray(_decoded(codes).reshape(codes.shape[1], -1)[:, : self._columns])


def nearest(wanted: np.ndarray) -> np.ndarray:
    """The codes ``[2, tuples]`` of tuples about nearest to some ``[tuples, 8]``.

    Where the number of minuses must be another, the sign of the smallest number turns, which is not always the best.
    """
    found = np.empty((2, len(wanted)), np.uint8)
    for start in range(0, len(wanted), CHUNK):
        part = wanted[start : start + CHUNK]
        ways = [_shifted(part, shift) for shift in (SHIFT, -SHIFT)]
        second = ways[1][2] > ways[0][2]
        found[:, start : start + CHUNK] = np.where(second, ways[1][:2], ways[0][:2])
    return found


def _shifted(wanted: np.ndarray, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The codes of the nearest tuples that are shifted so, and how near they are: what the squares lack, negative."""
    known, at = tables(), np.arange(len(wanted))
    moved = wanted - np.float32(shift)
    minus, sizes = moved < 0, np.abs(moved)
    smallest = sizes.argmin(1)
    turned = sizes.copy()
    turned[at, smallest] *= -1
    odd = (minus.sum(1) % 2 == 1)[:, None]
    parts = slice(0, known.even), slice(known.even, None)
    products = (np.where(odd, turned, sizes), np.where(odd, sizes, turned))
    scores = np.concatenate([one @ known.magnitudes[part].T for one, part in zip(products, parts, strict=True)], 1)
    scores -= np.square(known.magnitudes).sum(1) / 2
    best = scores.argmax(1)
    minus[at, smallest] ^= (best >= known.even) != odd[:, 0]
    signs = minus[:, : SIZE - 1] @ (1 << np.arange(SIZE - 1)) + (0 if shift > 0 else MIDDLE)
    return best, signs, 2 * scores[at, best] - np.square(moved).sum(1)


def _decoded(codes: np.ndarray) -> np.ndarray:
    """The tuples ``[..., 8]`` of codes ``[2, ...]``."""
    known = tables()
    return np.asarray((known.first[codes[0]] * known.second[codes[1]]) @ known.added)


@dataclass(frozen=True)
class LatticeTuples(Composition):
    """Eight neighbouring weights as one of 65,536 tuples of a lattice, two bits a weight.

    The tuples are those of E8P: points of the lattice E8 near zero, which lie as densely as eight numbers can, so they
    suit weights that are distributed like a bell. Eight bits choose magnitudes from a table of 256, seven the signs,
    of which the last one follows, and one a shift of a quarter. Both tables are the same for all weights, 18 KB in a
    file. `gptq` chooses tuples whole. ``stack(lattice(), codebook(256, size = 8))`` has three bits, ``stack(lattice(),
    lattice())`` four.

    Args:
        group: inputs that share a scale, in fp16; 0 for all inputs of an output.

    Source: QuIP#, Tseng et al. 2024 (arXiv:2402.04396), section 4; without its rotations.
    """

    keyword: ClassVar[str] = "lattice"

    group: Annotated[int, Limits(0, 1 << 20)] = 0

    def encoding(self) -> Encoding:
        """By its argument."""
        return Lattice(self.group)
