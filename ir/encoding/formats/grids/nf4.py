"""NormalFloat."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.format import BLOCK_WORDS, Format, Spelled
from qcc.ir.encoding.grid import NumberList

TABLE = NumberList(
    "nf4",
    (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ),
)  # fmt: skip
"""Quantiles of a normal distribution, as appendix E of the paper lists them."""
BLOCK = group(64)


class Nf4(Format):
    """Sixteen numbers that halve a normal distribution evenly, with a scale by block; in groups of 64 by default.

    Source: QLoRA, Dettmers et al. 2023 (arXiv:2305.14314), section 3.
    """

    keyword: ClassVar[str] = "nf4"
    words: ClassVar[tuple[str, ...]] = BLOCK_WORDS
    scale: ClassVar[str] = "fp16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """By block."""
        return Blocked(TABLE.grid, spelled.block or BLOCK, spelled.scale or self.scale)
