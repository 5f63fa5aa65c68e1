"""Bands: the inputs of a layer in groups, each stored by an encoding of its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, ClassVar, Literal

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
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.format import Composition, Format, Limits, Share, Spelled, check_share, percent
from qcc.ir.encoding.grid import Grid, IntGrid, TableGrid
from qcc.ir.encoding.packing import UNIT

By = Literal["activation", "sensitivity"]
MOST_BANDS = 3
"""That a weight is cut into: each has scales of its own."""
MOST_MEMBERS = 8
"""To choose them from."""
LEAST_UNITS = 8
"""Of codes that fill whole bytes, in a row: with fewer, columns are counted one by one."""
USUAL = 2.0  # bits by which the most and the least sensitive columns are off the middle, before data tells


@dataclass(frozen=True)
class Bands(Encoding):
    """Columns in bands, each of which is stored by one of some encodings; which, is stored of every column.

    Args:
        members: the encodings.
        share: of the columns in the first of two.
        average: bits of a code, over all columns; which members are used, and for how many columns, is chosen for
            each weight.
        by: what says that a column matters: the power of what it is multiplied with, or what its error costs once the
            columns that are rounded after it have made up for it.
        columns: how many each of the members has, where that is settled.

    Raises:
        ValueError: these do not go together.
    """

    members: tuple[Encoding, ...]
    share: float | None = None
    average: float | None = None
    by: By = "sensitivity"
    columns: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.columns is not None:
            return
        if (self.share is None) == (self.average is None):
            raise ValueError("bands take the share of the first of two, as in `share = 20%`, or an average of bits")
        if self.share is not None:
            check_share(self.share)
            if len(self.members) != 2:
                raise ValueError(f"a share is that of the first of two formats, not of {len(self.members)}")
        elif not 2 <= len(self.members) <= MOST_MEMBERS:
            raise ValueError(f"an average is over 2 to {MOST_MEMBERS} formats, not {len(self.members)}")
        elif len(set(self._bits)) < len(self.members):
            raise ValueError("the formats of an average have as many bits as no other")
        elif not min(self._bits) <= self.average <= max(self._bits):  # type: ignore[operator]  # one is there
            low, high = min(self._bits), max(self._bits)
            raise ValueError(f"{self.average:g} bits are no average of formats of {low} to {high}")

    @property
    def text(self) -> str:
        """The members and what says how many columns each has."""
        words = [one.text for one in self.members]
        if self.columns is not None:
            return f"bands({', '.join(words)}, columns = {'x'.join(map(str, self.columns))})"
        usual = "activation" if self.average is None else "sensitivity"
        words.append(f"share = {percent(self.share)}" if self.share is not None else f"average = {self.average:g}")
        return f"bands({', '.join(words)}{'' if self.by == usual else f', by = {self.by}'})"

    @property
    def within(self) -> tuple[Encoding, ...]:
        """The members."""
        return self.members

    @property
    def open(self) -> bool:
        """Where an average is not settled."""
        return (self.columns is None and self.average is not None) or super().open

    @property
    def rows_apart(self) -> bool:
        """Where all have their rows apart."""
        return all(one.rows_apart for one in self.members)

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Those of each band, and the number of each column's."""
        found: dict[str, Part] = {}
        bands = list(self._bands(shape[1]))
        for name, encoding, count in bands:
            found |= inside(encoding.parts((shape[0], count)), name)
        grid = _numbers(len(bands))
        return found if grid is None else found | {"band": Part((shape[1],), grid.bits, whole=True)}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """The bands side by side, and the columns put back."""
        bands = [
            ops.decode(encoding, under(read, name), (shape[0], count))
            for name, encoding, count in self._bands(shape[1])
        ]
        return self._in_order(ops, read, bands, shape[1], 1)

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """The same of each row."""
        bands = [
            ops.decode_rows(encoding, under(read, name), lead, (shape[0], count))
            for name, encoding, count in self._bands(shape[1])
        ]
        return self._in_order(ops, read, bands, shape[1], -1)

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """The columns that matter most are in the band of most bits, or in the first of two."""
        matter = _matter(matrix, fitter, self.by)
        settled = replace(self, columns=self._counts(matter))
        order = np.argsort(-matter, kind="stable")
        number, found, start = np.zeros(len(order), np.uint8), [], 0
        for at, (_, encoding, count) in enumerate(settled._bands(len(order))):
            part = np.sort(order[start : start + count])
            number[part] = at
            found.append(encoding.fit(np.ascontiguousarray(matrix[:, part]), fitter.of(part)))
            start += count
        return FittedBands(settled, found, number)

    @property
    def _bits(self) -> tuple[int, ...]:
        """Of a code of each member."""
        return tuple(one.order[0] for one in self.members)

    def _in_order(self, ops: Ops[V], read: Read[V], bands: Sequence[V], columns: int, axis: int) -> V:
        grid = _numbers(len(bands))
        if grid is None:
            return bands[0]
        place = ops.places(ops.numbers(read("band"), grid, (columns,)), columns)
        return ops.take(ops.concat(bands, axis), place, axis)

    def _bands(self, columns: int) -> Iterator[tuple[str, Encoding, int]]:
        """The name, encoding and columns of each band that has some."""
        counts = self.columns
        if counts is None:
            counts = self._counts(4.0 ** np.linspace(USUAL, -USUAL, columns))
        for at, (encoding, count) in enumerate(zip(self.members, counts, strict=True)):
            if count:
                yield str(at), encoding, count

    def _counts(self, matter: np.ndarray) -> tuple[int, ...]:
        """The columns of each member, of columns that matter so much: most bits first where there is an average."""
        if self.columns is not None:
            return self.columns
        total = len(matter)
        unit = UNIT if total >= LEAST_UNITS * UNIT else 1
        if self.share is not None:
            first = round(self.share * total / unit) * unit
            if not 0 < first < total:
                first = min(max(round(self.share * total), 1), max(total - 1, 1))
            return first, total - first
        assert self.average is not None
        found = _spread(np.sort(matter)[::-1], self._bits, self.average, unit)
        return tuple(found)


def _matter(matrix: np.ndarray, fitter: Fitter, by: By) -> np.ndarray:
    """How much each column matters: what data says, or else the squares of its weights."""
    told = fitter.power if by == "activation" or fitter.sensitivity is None else fitter.sensitivity
    if told is None or not told.any():
        return np.asarray(np.einsum("oi,oi->i", matrix, matrix, dtype=np.float64))
    return np.asarray(told, np.float64)


def _numbers(bands: int) -> Grid | None:
    """The grid whose codes are the numbers of bands, in their order; None where there is but one."""
    bits = (bands - 1).bit_length()
    return None if not bits else IntGrid(bits) if bits > 1 else TableGrid("int1")


def _spread(matter: np.ndarray, bits: Sequence[int], average: float, unit: int) -> list[int]:
    """How many columns each of some numbers of bits gets, most bits first: at most three of them, units of columns.

    What a column costs falls fourfold with each bit. Where costs were all equal after that, none would be saved by
    moving bits: with as many numbers of bits as one likes that is ``round(c + 1/2 log2(matter))`` bits. Under three of
    them the best counts are found by trying them all.

    Args:
        matter: of each column, falling.
        bits: to choose from, falling.
        average: of the columns, that no choice goes beyond.
        unit: counts are multiples of it, but for what is left over.
    """
    total, budget = len(matter), average * len(matter)
    before = np.concatenate(([0.0], np.cumsum(matter, dtype=np.float64)))
    best, found = np.inf, [0] * len(bits)
    for chosen in combinations(range(len(bits)), min(len(bits), MOST_BANDS)):
        most, *middle, least = (bits[at] for at in chosen)
        firsts = np.arange(0, total + 1, unit)
        left = budget - firsts * most - (total - firsts) * least
        firsts, left = firsts[left >= 0], left[left >= 0]
        if not len(firsts):
            continue
        seconds = np.zeros_like(firsts)
        if middle:
            fits = np.floor(left / (middle[0] - least) / unit).astype(firsts.dtype) * unit
            seconds = np.minimum(fits, total - firsts)
        ends = firsts + seconds
        loss = before[firsts] * 4.0**-most + (before[total] - before[ends]) * 4.0**-least
        loss += (before[ends] - before[firsts]) * 4.0 ** -(middle or [0])[0]
        at = int(np.argmin(loss))
        if loss[at] < best:
            best, found = float(loss[at]), [0] * len(bits)
            counts = [int(firsts[at]), int(seconds[at]), int(total - ends[at])]
            for member, count in zip(chosen, counts if middle else (counts[0], counts[2]), strict=True):
                found[member] = count
    return found


class FittedBands(Fitted):
    """The bands in order, and the number of each column's."""

    def __init__(self, settled: Bands, bands: Sequence[Fitted], number: np.ndarray) -> None:
        self._settled, self._bands, self._number = settled, bands, number
        self._at = np.empty(len(number), np.intp)
        for band in range(len(bands)):
            here = number == band
            self._at[here] = np.arange(int(here.sum()))

    def settled(self, asked: Encoding) -> Encoding:
        """With the columns of each member."""
        assert isinstance(asked, Bands)
        left = iter(self._bands)
        counts = self._settled.columns or ()
        pairs = zip(asked.members, counts, strict=True)
        members = tuple(next(left).settled(one) if count else one for one, count in pairs)
        return replace(asked if asked.average is None else self._settled, members=members)

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """By the column's band."""
        if isinstance(columns, int):
            return self._bands[int(self._number[columns])].round(rows, int(self._at[columns]), values)
        assert isinstance(rows, np.ndarray)
        found = np.empty_like(values)
        numbers = self._number[columns]
        for number, band in enumerate(self._bands):
            here = numbers == number
            if here.any():
                found[here] = band.round(rows[here], self._at[columns[here]], values[here])
        return found

    def parts(self) -> dict[str, np.ndarray]:
        """Those of the bands, and the numbers."""
        found: dict[str, np.ndarray] = {}
        names = (name for name, _, _ in self._settled._bands(len(self._number)))
        for name, band in zip(names, self._bands, strict=True):
            found |= inside(band.parts(), name)
        return found if len(self._bands) < 2 else found | {"band": self._number}


@dataclass(frozen=True)
class SeveralBands(Composition):
    """Several encodings in one weight, each for some of its inputs; which, is stored of every input in a bit or two.

    ``bands(int4 channel, int1 channel, share = 20%)``: the fifth of the inputs that matters most in the first.
    ``bands(int{0,1,2,4} channel, average = 2)``: as many bits for each input as it deserves, two for an input on
    average, codes alone. At most three of the formats are used in a weight, those with which it is told to lose least;
    each has scales of its own. An input of ``int0`` is left out.

    What matters is told by the calibration data that the method of rounding asks for: by ``sensitivity`` what an
    input's error costs at the output once the inputs that are rounded after it have made up for it, by ``activation``
    what the input is, squared. Without data it is the squares of its weights. Layers that read the same value agree.

    Args:
        members: how inputs may be stored.
        share: of the inputs, rounded to multiples of 8, that are stored in the first of two formats.
        average: of the bits of the formats over the inputs, where more than a share is to be chosen.
        by: what says that an input matters; by default ``activation`` for a share, ``sensitivity`` for an average.

    Source: BAQ, Zhang et al. 2025 (arXiv:2506.05664), section 3, for the bits of inputs; PTQ1.61, Zhao et al. 2025
    (arXiv:2502.13179), section 3.2, has such masks.
    """

    keyword: ClassVar[str] = "bands"
    beside: ClassVar[str] = "average"

    members: tuple[Encoding, ...]
    share: Share | None = None
    average: Annotated[float, Limits(0.1, 32)] | None = None
    by: By | None = None

    def encoding(self) -> Encoding:
        """By its arguments."""
        by = self.by or ("activation" if self.average is None else "sensitivity")
        if self.average is None:
            return Bands(self.members, self.share, by=by)
        members = dict.fromkeys(sorted(self.members, key=lambda one: -one.order[0]))
        return Bands(tuple(members), self.share, self.average, by)


class OneAndMore(Format):
    """The fifth of the inputs that is largest in ``int4 channel asym``, all others in ``binary channel``.

    It is ``bands(int4 channel asym, binary channel, share = 20%)`` in a word: 1.6 bits, and scales. Rounded by `gptq`
    the inputs of one bit make up for the errors of all before them.

    Source: PTQ1.61, Zhao et al. 2025 (arXiv:2502.13179), section 3.2.
    """

    keyword: ClassVar[str] = "ptq161"

    def encoding(self, spelled: Spelled) -> Encoding:
        """The one there is."""
        fine, coarse = Blocked(IntGrid(4, False), CHANNEL), Blocked(TableGrid("int1"), CHANNEL)
        return Bands((fine, coarse), 0.2, by="activation")
