"""Integers."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.format import BLOCK_WORDS, MID, SYMMETRY_WORDS, Format, Spelled
from qcc.ir.encoding.formats.composed.nothing import Nothing
from qcc.ir.encoding.grid import IntGrid, NumberList, TableGrid

TABLE = NumberList("int1", (-1.0, 1.0))
"""The halves of steps beside zero: one bit, and no zero."""


def _halves(bits: int) -> NumberList:
    """The halves of steps between integers, as many below zero as above."""
    ends = 1 << (bits - 1)
    return NumberList(f"int{bits}_mid", tuple(number + 0.5 for number in range(-ends, ends)))


MID2, MID3, MID4, MID5, MID6, MID7, MID8 = map(_halves, range(2, 9))


class Integers(Format):
    """Integers that share a scale by block.

    A symmetric one has its zero at half the range. The numbers of one with ``mid`` lie half a step beside the integers,
    so that there are as many below zero as above, and none is zero. With one bit that is all there can be: ``int1`` is
    the two halves of a step beside zero. ``int0`` stores nothing, of weights that are zero then.

    Source: OFQ, Liu et al. 2023 (arXiv:2302.02210), for grids with zero between two numbers.
    """

    keyword: ClassVar[str] = "int"
    bits: ClassVar[tuple[int, int] | None] = (0, 8)
    words: ClassVar[tuple[str, ...]] = (*BLOCK_WORDS, *SYMMETRY_WORDS, MID)
    scale: ClassVar[str] = "fp16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """By the number of bits."""
        if not spelled.bits:
            return Nothing()
        return Blocked(_grid(spelled), spelled.block or CHANNEL, spelled.scale or self.scale)


def _grid(spelled: Spelled) -> IntGrid | TableGrid:
    assert spelled.bits is not None
    if spelled.bits == 1 and not spelled.asym:
        return TABLE.grid
    return TableGrid(f"int{spelled.bits}_mid") if spelled.mid else IntGrid(spelled.bits, not spelled.asym)


class Binary(Format):
    """The two halves of a step beside zero: ``int1`` by another name."""

    keyword: ClassVar[str] = "binary"
    words: ClassVar[tuple[str, ...]] = BLOCK_WORDS
    scale: ClassVar[str] = "fp16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """By block."""
        return Blocked(TABLE.grid, spelled.block or CHANNEL, spelled.scale or self.scale)
