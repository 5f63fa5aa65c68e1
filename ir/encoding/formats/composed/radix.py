"""Mixed radix: several numbers of a grid whose count is no power of two, as the digits of one code."""

from collections.abc import Mapping, Sequence
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
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.format import Composition, Limits
from qcc.ir.encoding.grid import IntGrid, NumberList, TableGrid

DIGITS = {3: (5, 8), 5: (3, 7), 6: (3, 8), 11: (2, 7)}
"""How many digits a code has, and its bits, by the levels."""


def _even(levels: int) -> NumberList:
    """As many whole numbers around zero, or halves between them."""
    return NumberList(f"levels{levels}", tuple(at - (levels - 1) / 2 for at in range(levels)))


THREE, FIVE, SIX, ELEVEN = map(_even, DIGITS)


@dataclass(frozen=True)
class Radix(Encoding):
    """Neighbouring columns as the digits of a code, and a scale for each row or group.

    Args:
        levels: that a weight may have.
        group: columns that share a scale; 0 for whole rows.

    Raises:
        ValueError: levels are none that fill codes.
    """

    levels: int
    group: int = 0

    def __post_init__(self) -> None:
        if self.levels not in DIGITS:
            raise ValueError(f"a digit has {', '.join(map(str, DIGITS))} levels, not {self.levels}")

    @property
    def text(self) -> str:
        """The levels, and the group if there is one."""
        return f"radix({self.levels}{f', group = {self.group}' if self.group else ''})"

    @property
    def rows_apart(self) -> bool:
        """A row has its own codes and scales."""
        return True

    @property
    def digits(self) -> Blocked:
        """The same, a code for each weight."""
        return Blocked(TableGrid(f"levels{self.levels}"), group(self.group) if self.group else CHANNEL)

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Scales and codes."""
        count, bits = DIGITS[self.levels]
        found = dict(self.digits.parts(shape))
        return found | {"codes": Part((shape[0], -(-shape[1] // count)), bits)}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """The digits of the codes, times the scales."""
        return self.decode_rows(ops, read, shape[:1], shape)

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """The same of each row."""
        (count, bits), columns = DIGITS[self.levels], shape[1]
        codes = -(-columns // count)
        index = ops.numbers(read("codes"), IntGrid(bits), (*lead, codes))
        table = ops.constant(f"radix{self.levels}", _table(self.levels))
        values = ops.reshape(ops.take(table, index, 0), (*lead, codes * count))
        if codes * count > columns:
            values = ops.cut(values, (*lead, columns))
        scale, together = ops.floats(read("scale.values")), min(self.group or columns, columns)
        return ops.times(values, scale if together == columns else ops.spread(scale, -1, together, columns))

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """As the digits are."""
        return FittedDigits(self.levels, fitter.leaf(matrix, self.digits, fitter))


class FittedDigits(Fitted):
    """Weights one by one, which are put together only when they are stored."""

    def __init__(self, levels: int, digits: Fitted) -> None:
        self._levels, self._digits = levels, digits

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """As the digits are."""
        return self._digits.round(rows, columns, values)

    def parts(self) -> dict[str, np.ndarray]:
        """Scales, and the digits of neighbours in one code, the first the highest."""
        found = self._digits.parts()
        count, bits = DIGITS[self._levels]
        digits = found["codes"].astype(np.int32)
        digits = np.pad(digits, ((0, 0), (0, -digits.shape[1] % count))).reshape(len(digits), -1, count)
        number = digits @ self._levels ** np.arange(count - 1, -1, -1, dtype=np.int32)
        return found | {"codes": (number ^ (1 << (bits - 1))).astype(np.uint8)}


@dataclass(frozen=True)
class MixedRadix(Composition):
    """Weights of 3, 5, 6 or 11 levels, several as the digits of one code.

    ``radix(3)`` is ternary at 1.6 bits, five weights in a byte; 5 levels take 2.33 bits, 6 take 2.67 and 11 take 3.5. A
    table of the codes' digits, once in a file, unpacks them. Levels are even steps around zero; there is one at zero
    where their number is odd. Of 7 levels no code is shorter than the 3 bits of `int3`.

    Args:
        levels: that a weight may have.
        group: inputs that share a scale, in fp16; 0 for all inputs of an output.
    """

    keyword: ClassVar[str] = "radix"

    levels: Annotated[int, Limits(3, 11)]
    group: Annotated[int, Limits(0, 1 << 20)] = 0

    def encoding(self) -> Encoding:
        """By its arguments."""
        return Radix(self.levels, self.group)


def _table(levels: int) -> np.ndarray:
    """The digits of each code as numbers ``[codes, digits]``; codes of no digits have the highest."""
    count, bits = DIGITS[levels]
    at = np.minimum(np.arange(1 << bits), levels**count - 1)[:, None]
    digits = at // levels ** np.arange(count - 1, -1, -1) % levels
    return TableGrid(f"levels{levels}").numbers(digits.astype(np.uint8))
