"""A format, its numbers and a way to store scales, all of it new: nothing else in the project names them."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, Scale
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.format import BLOCK_WORDS, Format, Spelled
from qcc.ir.encoding.grid import FloatGrid, IntGrid, NumberList

FIVES = NumberList("fives", (-4.0, -1.0, 0.0, 1.0, 4.0))


class Brief(Scale):
    """Floats of 16 bits that reach far."""

    name: ClassVar[str] = "brief"

    def encoding(self) -> Encoding:
        """A float for each block, which needs no scale itself."""
        return Blocked(FloatGrid(8, 7), scale=None)


class Twice(Scale):
    """Whole numbers, which have scales of their own."""

    name: ClassVar[str] = "twice"

    def encoding(self) -> Encoding:
        """Codes and zero points by groups of scales."""
        return Blocked(IntGrid(8, symmetric=False), group(4), "fp32")


class Fives(Format):
    """Five numbers with a scale by block."""

    keyword: ClassVar[str] = "fives"
    words: ClassVar[tuple[str, ...]] = BLOCK_WORDS
    scale: ClassVar[str] = "brief"

    def encoding(self, spelled: Spelled) -> Encoding:
        """By block."""
        return Blocked(FIVES.grid, spelled.block or group(16), spelled.scale or self.scale)


class Twins(Format):
    """Five numbers, in the one way that they were published."""

    keyword: ClassVar[str] = "twins"

    def encoding(self, spelled: Spelled) -> Encoding:
        """The only one."""
        return Blocked(FIVES.grid, group(16), "twice")
