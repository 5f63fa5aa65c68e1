"""Integers."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, ScaleType
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.format import BLOCK_WORDS, SYMMETRY_WORDS, Format, Spelled
from qcc.ir.encoding.grid import IntGrid, TableGrid

HALVES = TableGrid("int1")


class Integers(Format):
    """Integers that share a scale by block.

    A symmetric one has its zero at half the range; with one bit that would leave a number and zero, so ``int1`` is the
    two halves of a step beside zero instead.
    """

    keyword: ClassVar[str] = "int"
    bits: ClassVar[tuple[int, int] | None] = (1, 8)
    words: ClassVar[tuple[str, ...]] = (*BLOCK_WORDS, *SYMMETRY_WORDS)
    scales: ClassVar[tuple[ScaleType, ...]] = ("fp16", "fp32")

    def encoding(self, spelled: Spelled) -> Encoding:
        """By the number of bits."""
        assert spelled.bits is not None
        grid = HALVES if spelled.bits == 1 and not spelled.asym else IntGrid(spelled.bits, not spelled.asym)
        return Blocked(grid, spelled.block or CHANNEL, spelled.scale or "fp16")


class Binary(Format):
    """The two halves of a step beside zero: ``int1`` by another name."""

    keyword: ClassVar[str] = "binary"
    words: ClassVar[tuple[str, ...]] = BLOCK_WORDS
    scales: ClassVar[tuple[ScaleType, ...]] = ("fp16", "fp32")

    def encoding(self, spelled: Spelled) -> Encoding:
        """By block."""
        return Blocked(HALVES, spelled.block or CHANNEL, spelled.scale or "fp16")
