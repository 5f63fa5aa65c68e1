"""Five numbers with a scale by block."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.format import BLOCK_WORDS, Format, Spelled
from qcc.ir.encoding.grid import NumberList

FIVES = NumberList("fives", (-4.0, -1.0, 0.0, 1.0, 4.0))


class Fives(Format):
    """Five numbers, far apart, with a scale by block."""

    keyword: ClassVar[str] = "fives"
    words: ClassVar[tuple[str, ...]] = BLOCK_WORDS
    scale: ClassVar[str] = "fp16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """By block."""
        return Blocked(FIVES.grid, spelled.block or group(16), spelled.scale or self.scale)
