"""NormalFloat."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, ScaleType
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.format import BLOCK_WORDS, Format, Spelled
from qcc.ir.encoding.grid import TableGrid

GRID, BLOCK = TableGrid("nf4"), group(64)


class Nf4(Format):
    """Sixteen numbers that halve a normal distribution evenly, with a scale by block; in groups of 64 by default.

    Source: QLoRA, Dettmers et al. 2023 (arXiv:2305.14314), section 3.
    """

    keyword: ClassVar[str] = "nf4"
    words: ClassVar[tuple[str, ...]] = BLOCK_WORDS
    scales: ClassVar[tuple[ScaleType, ...]] = ("fp16", "fp32")

    def encoding(self, spelled: Spelled) -> Encoding:
        """By block."""
        return Blocked(GRID, spelled.block or BLOCK, spelled.scale or "fp16")
