"""Numbers that span decades."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.format import BLOCK_WORDS, Format, Spelled
from qcc.ir.encoding.grid import NumberList

DECADES = 7


def _numbers() -> tuple[float, ...]:
    """For each decade twice as many as for the one below, evenly within it, with a sign; and zero, and one."""
    found = [0.0, 1.0]
    for at in range(DECADES):
        count = 1 << at
        for step in range(count):
            number = (0.1 + 0.9 * (step + 0.5) / count) * 10.0 ** (at + 1 - DECADES)
            found += [number, -number]
    return tuple(sorted(found))


TABLE = NumberList("dynamic8", _numbers())


class Dynamic8(Format):
    """Numbers of 8 bits that span seven decades, with a scale by block; in groups of 2048 by default.

    Of a code's bits the first zeros say the decade and the others where in it: few digits for the small, many for the
    large. Made for what spans decades (states of optimizers, variances, gains), whose small numbers `int8` loses.
    Ordinary weights are better off in `int8` of the same size, and the allocator finds them so.

    Source: 8-bit optimizers via block-wise quantization, Dettmers et al. 2021 (arXiv:2110.02861), section 2.2.
    """

    keyword: ClassVar[str] = "dynamic8"
    words: ClassVar[tuple[str, ...]] = BLOCK_WORDS
    scale: ClassVar[str] = "fp16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """By block and scale."""
        return Blocked(TABLE.grid, spelled.block or group(2048), spelled.scale or self.scale)
