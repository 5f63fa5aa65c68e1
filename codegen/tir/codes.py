"""How kernels read the codes of a grid: as whole numbers themselves, or by a table that a register holds.

A product with activations ``q`` that were rounded to int8 is one of integers. For each number ``v`` of a grid there are
whole numbers ``t``, one a term, with ``v = (sum of weight * t - zero) * factor``. A code of integers is its own only
term. A table whose numbers are multiples of a power of two (int1, fp4) needs one term too, and loses nothing; another
(nf4) takes two, a coarse and a fine one, and each of its numbers is right to half of ``factor``.
"""

from dataclasses import dataclass

import numpy as np

from qcc.ir.encoding.blocked import Floats
from qcc.ir.encoding.grid import TableGrid
from qcc.ir.kernel.op import CHUNK, Leaf

FINEST = 8  # halvings that are tried before a table is split in two
REGISTER = 16  # numbers that a table in a register has
BYTE = 8


@dataclass(frozen=True)
class CodeTerm:
    """A whole number for each code.

    Args:
        weight: that it counts with, a power of two.
        highest: the largest, from zero on.
        table: by code, repeated to `REGISTER`; None for the code itself, of which ``mask`` keeps some bits.
        mask: of codes that are read in parts.
    """

    weight: int
    highest: int
    table: tuple[int, ...] | None = None
    mask: int | None = None


@dataclass(frozen=True)
class CodeTerms:
    """What stands for the numbers of a grid in whole numbers; the zero is that of codes without stored zero points."""

    parts: tuple[CodeTerm, ...]
    zero: int
    factor: float = 1.0


@dataclass(frozen=True)
class SmallFloat:
    """A float of 8 bits: ``factor`` times a float16 of its sign, whose other bits are its own, ``shift`` higher."""

    shift: int
    factor: float


@dataclass(frozen=True)
class Codes:
    """The codes of a grid.

    Args:
        bits: of a code; 16 for weights that are bfloat16 themselves, 32 for float32.
        stored_zero: there are zero points.
        table: the number of each code; None for whole numbers around half their range, or floats.
        half: scales are read as float16.
    """

    bits: int
    stored_zero: bool = False
    table: tuple[float, ...] | None = None
    half: bool = False

    @property
    def stored(self) -> dict[str, str]:
        """What functions read the scales as."""
        return {"scale": "float16" if self.half else "float32"}

    @property
    def is_float(self) -> bool:
        """There are no codes: weights are floats."""
        return self.bits >= 16

    @property
    def middle(self) -> int:
        """The code of zero of whole numbers without stored zero points."""
        return 1 << self.bits - 1

    @property
    def fits(self) -> bool:
        """There is no table, or one that a register holds."""
        return self.table is None or len(self.table) <= REGISTER

    @property
    def small(self) -> SmallFloat | None:
        """How bits make the number of a code where it is a float of 8 bits; else None."""
        if self.table is None or self.bits != BYTE:
            return None
        code, table = np.arange(1 << BYTE), np.array(self.table)
        used = np.isfinite(table)
        for shift in (7, 8):  # an exponent of 4 bits, and of 5
            bits = ((code & 0x80) << 8 | (code & 0x7F) << shift).astype(np.uint16)
            numbers = bits.view(np.float16)[used].astype(np.float64)
            factor = float(table[1] / numbers[1])
            if np.isfinite(numbers).all() and np.array_equal(numbers * factor, table[used]):
                return SmallFloat(shift, factor)
        return None

    @property
    def register(self) -> tuple[float, ...]:
        """The table as a register holds it."""
        assert self.table is not None
        assert self.fits
        return self.table * (REGISTER // len(self.table))

    def terms(self, most: int) -> CodeTerms:
        """In whole numbers up to ``most``, one less than a power of two."""
        if self.table is not None:
            return _terms(np.array(self.register, np.float64), most)
        highest = (1 << self.bits) - 1
        if highest <= most:
            return CodeTerms((CodeTerm(1, highest),), self.middle)
        parts = (CodeTerm(1, most, mask=most), CodeTerm(1, highest - most, mask=highest - most))
        return CodeTerms(parts, self.middle)


def codes_of(encoding: Leaf) -> Codes:
    """The codes of an encoding that kernels take."""
    if isinstance(encoding, Floats):
        return Codes(encoding.parts((1, 1))["values"].bits)
    grid, parts = encoding.grid, encoding.parts((1, CHUNK))
    table = tuple(map(float, grid.table)) if isinstance(grid, TableGrid) else None
    return Codes(parts["codes"].bits, "zero" in parts, table)


def _terms(numbers: np.ndarray, most: int) -> CodeTerms:
    low, high = numbers.min(), numbers.max()
    for halvings in range(FINEST):
        whole = numbers * 2.0**halvings
        zero = -low * 2.0**halvings
        if (whole == np.rint(whole)).all() and (high - low) * 2.0**halvings <= most:
            table = (whole + zero).astype(int)
            return CodeTerms((CodeTerm(1, int(table.max()), _ints(table)),), int(zero), 0.5**halvings)
    base = most + 1
    zero = base * base // 2 - 1
    factor = max(high, -low) / zero
    whole = np.rint(numbers / factor).astype(int) + zero
    parts = (CodeTerm(base, most, _ints(whole // base)), CodeTerm(1, most, _ints(whole % base)))
    return CodeTerms(parts, zero, float(factor))


def _ints(numbers: np.ndarray) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers)
