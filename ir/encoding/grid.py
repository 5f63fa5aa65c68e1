"""Element grids: the numbers that a code can stand for, before a block's scale.

A grid is its list of numbers, so every grid answers the same: how many bits a code takes (``bits``), the ends of the
range (``lowest``, ``highest``), the ``widest`` step in it, the nearest codes of values (``codes``), the numbers of
codes (``numbers``) and both in one (``round``), and in which ``planes`` a code is stored. ``values`` are in units of
the scale wherever there is one. Codes are unsigned, one a number.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import ml_dtypes
import numpy as np

from qcc.ir.discovery import named_once, values
from qcc.ir.encoding.packing import planes

FORMATS = "qcc.ir.encoding.formats"
"""The folder whose modules hold tables and scales; they rest on this one, so it knows them by name alone."""


@dataclass(frozen=True)
class IntGrid:
    """The integers of ``bits`` bits; symmetric ones have their zero at half the range.

    Others have it where each block's zero point says. A zero point has the shape of what it is given with, or
    broadcasts to it; None is half the range.
    """

    bits: int
    symmetric: bool = True

    @property
    def text(self) -> str:
        """The name in the language."""
        return f"int{self.bits}"

    @property
    def name(self) -> str:
        """As names of functions spell it."""
        return self.text

    @property
    def symmetry(self) -> str:
        """The language's word for what zero points there are."""
        return "sym" if self.symmetric else "asym"

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """Numpy's type of the codes."""
        return np.uint8

    @property
    def planes(self) -> tuple[int, ...]:
        """The widths of the planes of a code, lowest bits first."""
        return planes(self.bits)

    @property
    def number_type(self) -> str:
        """The type of integers whose numbers are its own, or where there are zero points, its codes."""
        return self.text if self.symmetric else f"u{self.text}"

    def as_numbers(self, codes: np.ndarray) -> np.ndarray:
        """Codes in the bits of that type: those with a sign in two's complement, of `bits` bits."""
        return np.asarray(codes ^ self.dtype(self.middle) if self.symmetric else codes)

    @property
    def levels(self) -> int:
        """How many codes there are."""
        return 1 << self.bits

    @property
    def middle(self) -> int:
        """The code of zero in a symmetric grid."""
        return self.levels // 2

    @property
    def lowest(self) -> int:
        """The number of the first code, with the zero at half the range."""
        return -self.middle

    @property
    def highest(self) -> int:
        """The number of the last code, with the zero at half the range."""
        return self.middle - 1

    @property
    def widest(self) -> int:
        """The widest step between neighbours."""
        return 1

    def codes(self, values: np.ndarray, zero: np.ndarray | None = None) -> np.ndarray:
        """The nearest codes."""
        steps = np.rint(values)
        steps += self._zero(zero)
        return np.asarray(np.clip(steps, 0, self.levels - 1, out=steps), self.dtype)

    def numbers(self, codes: np.ndarray, zero: np.ndarray | None = None) -> np.ndarray:
        """The numbers of codes, float32."""
        found = codes.astype(np.float32)
        found -= self._zero(zero)
        return found

    def round(self, values: np.ndarray, zero: np.ndarray | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """The nearest numbers, written to ``out`` if it is given."""
        below, steps = self._zero(zero), np.rint(values, out=out)
        if zero is None:
            return np.asarray(np.clip(steps, -below, self.levels - 1 - below, out=steps))
        steps += below  # bounds that are arrays take several times as long
        np.clip(steps, 0, self.levels - 1, out=steps)
        steps -= below
        return np.asarray(steps)

    def _zero(self, zero: np.ndarray | None) -> np.ndarray | np.float32:
        return np.float32(self.middle) if zero is None else zero.astype(np.float32)


@dataclass(frozen=True)
class FloatGrid:
    """Floating-point numbers of a sign, ``exponent`` and ``mantissa`` bits, in IEEE 754's layout, subnormals included.

    The last exponent is left to infinities and NaN: codes have them, and no value is rounded to one. Ties go to even.
    """

    exponent: int
    mantissa: int

    symmetric: ClassVar[bool] = True
    symmetry: ClassVar[str] = ""

    @property
    def text(self) -> str:
        """The name in the language."""
        return next((name for name, known in FLOATS.items() if known == self), f"e{self.exponent}m{self.mantissa}")

    @property
    def name(self) -> str:
        """As names of functions spell it."""
        return self.text

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return 1 + self.exponent + self.mantissa

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """Numpy's type of the codes."""
        return np.uint8 if self.bits <= 8 else np.uint16

    @property
    def planes(self) -> tuple[int, ...]:
        """The widths of the planes of a code, lowest bits first."""
        return planes(self.bits)

    @property
    def lowest(self) -> float:
        """The least finite number."""
        return -self.highest

    @property
    def highest(self) -> float:
        """The largest finite number."""
        return self.widest * ((1 << (self.mantissa + 1)) - 1)

    @property
    def widest(self) -> float:
        """The widest step between neighbours: before the last."""
        return float(np.ldexp(1.0, 1 - self._least - self.mantissa))

    @property
    def _least(self) -> int:
        """The exponent of the smallest normal number, which subnormals have too."""
        return 2 - (1 << (self.exponent - 1))

    def codes(self, values: np.ndarray, zero: np.ndarray | None = None) -> np.ndarray:
        """The nearest codes: magnitudes are numbered in order, and the sign is the first bit."""
        size = np.minimum(np.abs(values), self.highest, dtype=np.float32)
        exponent = np.maximum((size.view(np.int32) >> 23) - 127, self._least)
        codes = np.rint(np.ldexp(size, self.mantissa - exponent)).astype(np.int32)
        codes += (exponent - self._least) << self.mantissa  # rounded up to the next power of two, it is the next code
        codes |= np.signbit(values).astype(np.int32) << (self.bits - 1)
        return np.asarray(codes, self.dtype)

    def numbers(self, codes: np.ndarray, zero: np.ndarray | None = None) -> np.ndarray:
        """The numbers of codes, float32."""
        return np.asarray(_all_numbers(self)[codes])

    def round(self, values: np.ndarray, zero: np.ndarray | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """The nearest numbers, written to ``out`` if it is given."""
        return np.asarray(np.take(_all_numbers(self), self.codes(values), out=out))


@dataclass(frozen=True)
class TableGrid:
    """The numbers of a `NumberList`, by code."""

    name: str

    symmetric: ClassVar[bool] = True
    symmetry: ClassVar[str] = ""

    @property
    def text(self) -> str:
        """The name in the language, which has words where names of functions have underscores."""
        return self.name.replace("_", " ")

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return (len(self.table) - 1).bit_length()

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """Numpy's type of the codes."""
        return np.uint8

    @property
    def planes(self) -> tuple[int, ...]:
        """The widths of the planes of a code, lowest bits first."""
        return planes(self.bits)

    @property
    def table(self) -> np.ndarray:
        """The number of each code, float32; NaN for codes that stand for none."""
        return _table(self.name)

    @property
    def lowest(self) -> float:
        """The least number."""
        return float(_sorted(self.name)[0][0])

    @property
    def highest(self) -> float:
        """The largest number."""
        return float(_sorted(self.name)[0][-1])

    @property
    def widest(self) -> float:
        """The widest step between neighbours."""
        return float(np.diff(_sorted(self.name)[0]).max())

    def codes(self, values: np.ndarray, zero: np.ndarray | None = None) -> np.ndarray:
        """The nearest codes; of two as near the one of the lesser number."""
        numbers, codes = _sorted(self.name)
        middles = (numbers[1:] + numbers[:-1]) / 2
        return np.asarray(codes[np.searchsorted(middles, values)])

    def numbers(self, codes: np.ndarray, zero: np.ndarray | None = None) -> np.ndarray:
        """The numbers of codes, float32."""
        return np.asarray(self.table[codes])

    def round(self, values: np.ndarray, zero: np.ndarray | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """The nearest numbers, written to ``out`` if it is given."""
        return np.asarray(np.take(self.table, self.codes(values), out=out, mode="clip"))


Grid = IntGrid | FloatGrid | TableGrid


@dataclass(frozen=True)
class NumberList:
    """A list of numbers, by code, under its name in the language; NaN for a code that stands for none.

    So do codes beyond the list, if their bits leave room for some.

    The name is one word, or several with underscores between: ``fp8_e4m3``.

    One that stands at the top of a module of the folder of formats is found there; nothing registers it.
    """

    name: str
    numbers: tuple[float, ...]

    @property
    def grid(self) -> TableGrid:
        """The grid of its numbers."""
        return TableGrid(self.name)


def tables() -> dict[str, NumberList]:
    """Every table by its name."""
    return named_once(values(FORMATS, NumberList))


def numbers_of(dtype: type) -> tuple[float, ...]:
    """The numbers of a float type of at most a byte, by code."""
    bits: int = ml_dtypes.finfo(dtype).bits  # type: ignore[no-untyped-call]  # it has no types
    codes = np.arange(1 << bits, dtype=np.uint8)
    return tuple(codes.view(dtype).astype(np.float64).tolist())


@lru_cache
def _table(name: str) -> np.ndarray:
    """The numbers of a table.

    Raises:
        KeyError: nothing is called so; not kept, as a folder that is being imported may yet hold it.
    """
    numbers = tables()[name].numbers
    table = np.full(1 << (len(numbers) - 1).bit_length(), np.nan, np.float32)
    table[: len(numbers)] = numbers
    table.flags.writeable = False
    return table


@lru_cache
def _sorted(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a table in order, and their codes; of two codes of a number the first."""
    numbers, codes = np.unique(_table(name), return_index=True)
    finite = np.isfinite(numbers)
    return numbers[finite], codes[finite].astype(np.uint8)


FLOATS = {"bf16": FloatGrid(8, 7), "fp16": FloatGrid(5, 10)}
"""Floats that need no scale to hold a weight, by their names in the language."""


@lru_cache
def _all_numbers(grid: FloatGrid) -> np.ndarray:
    """The number of each code, by the code: float32 ``[2 ** bits]``."""
    size = np.arange(1 << (grid.bits - 1))
    field, rest = size >> grid.mantissa, size & ((1 << grid.mantissa) - 1)
    steps = rest + ((field > 0) << grid.mantissa)
    found = np.ldexp(steps.astype(np.float64), np.maximum(field - 1, 0) + (grid._least - grid.mantissa))
    last = field == (1 << grid.exponent) - 1
    found[last] = np.where(rest[last], np.nan, np.inf)
    table = np.concatenate([found, -found]).astype(np.float32)
    table.flags.writeable = False
    return table


def grid_of(name: str, symmetric: bool = True) -> Grid | None:
    """The grid of a name in the language; None if there is none."""
    if symmetric and name in tables():
        return TableGrid(name)
    bits = name.removeprefix("int")
    return IntGrid(int(bits), symmetric) if bits != name and bits.isdecimal() else FLOATS.get(name)
