"""Bands: the inputs of a layer in groups, each stored by an encoding of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

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
    numbers_below,
    percent,
    under,
    whole,
)
from qcc.ir.encoding.format import Composition, Share, check_share
from qcc.ir.encoding.packing import UNIT


@dataclass(frozen=True)
class Bands(Encoding):
    """A share of the columns in one encoding, the others in a second; the place of each column is stored."""

    fine: Encoding
    coarse: Encoding
    share: float

    def __post_init__(self) -> None:
        check_share(self.share)

    @property
    def text(self) -> str:
        """Both encodings and the share of the first."""
        return f"bands({self.fine.text}, {self.coarse.text}, share = {percent(self.share)})"

    @property
    def within(self) -> tuple[Encoding, ...]:
        """Both."""
        return self.fine, self.coarse

    @property
    def rows_apart(self) -> bool:
        """Where both have their rows apart."""
        return self.fine.rows_apart and self.coarse.rows_apart

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Those of both bands, and the place of each column among them."""
        found: dict[str, Part] = {}
        for name, encoding, count in self._bands(shape[1]):
            found |= inside(encoding.parts((shape[0], count)), name)
        return found | whole({"place": numbers_below(shape[1], (shape[1],))})

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """The bands side by side, and the columns put back."""
        bands = [
            ops.decode(encoding, under(read, name), (shape[0], count))
            for name, encoding, count in self._bands(shape[1])
        ]
        return ops.take(ops.concat(bands, 1), read("place"), 1)

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """The same of each row."""
        bands = [
            ops.decode_rows(encoding, under(read, name), lead, (shape[0], count))
            for name, encoding, count in self._bands(shape[1])
        ]
        return ops.take(ops.concat(bands, -1), read("place"), -1)

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """The columns that matter most are fine: by their norm, and the power that they are multiplied with."""
        matter = np.einsum("oi,oi->i", matrix, matrix) * fitter.weights(matrix.shape[1])
        order, start, bands = np.argsort(-matter, kind="stable"), 0, {}
        for name, encoding, count in self._bands(matrix.shape[1]):
            part = order[start : start + count]
            part.sort()
            bands[name] = encoding.fit(np.ascontiguousarray(matrix[:, part]), fitter.of(part))
            start += count
        return FittedBands(bands, np.argsort(order), self._bands(matrix.shape[1])[0][2])

    def _bands(self, columns: int) -> list[tuple[str, Encoding, int]]:
        """The name, encoding and columns of each band that has some.

        The share is rounded to whole units of codes, to single columns where a weight has few; neither band is empty
        but in a single column.
        """
        count = round(self.share * columns / UNIT) * UNIT
        if not 0 < count < columns:
            count = min(max(round(self.share * columns), 1), max(columns - 1, 1))
        bands = [("fine", self.fine, count), ("coarse", self.coarse, columns - count)]
        return [band for band in bands if band[2]]


class FittedBands(Fitted):
    """The bands, by name, with the place of each column and the columns of the first."""

    def __init__(self, bands: Mapping[str, Fitted], place: np.ndarray, first: int) -> None:
        self._bands, self._place, self._first = bands, place, first

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """By the column's band."""
        if isinstance(columns, int):
            at, band = self._of(int(self._place[columns]))
            return band.round(rows, at, values)
        found = np.empty_like(values)
        places = self._place[columns]
        for fine in (True, False):
            here = (places < self._first) == fine
            if here.any() and isinstance(rows, np.ndarray):
                band = self._of(int(places[here][0]))[1]
                found[here] = band.round(rows[here], places[here] - (0 if fine else self._first), values[here])
        return found

    def parts(self) -> dict[str, np.ndarray]:
        """Those of both bands, and the places."""
        found: dict[str, np.ndarray] = {}
        for name, band in self._bands.items():
            found |= inside(band.parts(), name)
        return found | {"place": self._place.astype(numbers_below(len(self._place), ()).dtype)}

    def _of(self, place: int) -> tuple[int, Fitted]:
        """The column within its band, and the band."""
        fine, *coarse = self._bands.values()
        return (place, fine) if place < self._first else (place - self._first, coarse[0])


@dataclass(frozen=True)
class TwoBands(Composition):
    """Two encodings in one weight: the inputs that matter most in the first, all others in the second.

    The inputs that matter are those with the largest weights, times what the inputs themselves are on calibration data
    where the rounding method asks for it. The place of every input is stored, in 16 bits.

    Args:
        fine: how the inputs that matter are stored.
        coarse: how the others are.
        share: of the inputs, rounded to multiples of 8, that are stored in the first.

    Source: PTQ1.61, Zhao et al. 2025 (arXiv:2502.13179), section 3.2, has such masks.
    """

    keyword: ClassVar[str] = "bands"

    fine: Encoding
    coarse: Encoding
    share: Share

    def encoding(self) -> Encoding:
        """By its arguments."""
        return Bands(self.fine, self.coarse, self.share)
