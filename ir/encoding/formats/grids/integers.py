"""Integers."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.format import BLOCK_WORDS, SYMMETRY_WORDS, Format, Spelled
from qcc.ir.encoding.grid import IntGrid, NumberList

TABLE = NumberList("int1", (-1.0, 1.0))
"""The halves of steps beside zero: one bit, and no zero."""


class Integers(Format):
    """Integers that share a scale by block.

    A symmetric one has its zero at half the range; with one bit that would leave a number and zero, so ``int1`` is the
    two halves of a step beside zero instead.
    """

    keyword: ClassVar[str] = "int"
    bits: ClassVar[tuple[int, int] | None] = (1, 8)
    words: ClassVar[tuple[str, ...]] = (*BLOCK_WORDS, *SYMMETRY_WORDS)
    scale: ClassVar[str] = "fp16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """By the number of bits."""
        assert spelled.bits is not None
        grid = TABLE.grid if spelled.bits == 1 and not spelled.asym else IntGrid(spelled.bits, not spelled.asym)
        return Blocked(grid, spelled.block or CHANNEL, spelled.scale or self.scale)


class Binary(Format):
    """The two halves of a step beside zero: ``int1`` by another name."""

    keyword: ClassVar[str] = "binary"
    words: ClassVar[tuple[str, ...]] = BLOCK_WORDS
    scale: ClassVar[str] = "fp16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """By block."""
        return Blocked(TABLE.grid, spelled.block or CHANNEL, spelled.scale or self.scale)
