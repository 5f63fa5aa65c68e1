"""Integers that share an exponent."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.format import Format, Spelled
from qcc.ir.encoding.grid import IntGrid

POWERS = "e8m0"


class Bfp(Format):
    """Block floating point: mantissas of some bits in two's complement whose block shares an exponent of 8 bits.

    ``bfp 4 group 16`` is ``int4 group 16 scale e8m0``, which hardware calls BFP12. Of the two powers beside the best
    scale, each block gets the one under which it errs less. In groups of 16 by default.

    Source: accurate block quantisation, Trukhanov and Soloveychik 2024 (arXiv:2403.20137), section 2.
    """

    keyword: ClassVar[str] = "bfp"
    bits: ClassVar[tuple[int, int] | None] = (2, 8)
    spaced: ClassVar[bool] = True
    words: ClassVar[tuple[str, ...]] = ("group",)

    def encoding(self, spelled: Spelled) -> Encoding:
        """By the bits of a mantissa, and the block."""
        assert spelled.bits is not None
        return Blocked(IntGrid(spelled.bits), spelled.block or group(16), POWERS)


class Mxint8(Format):
    """Integers of 8 bits in groups of 32 that share a power of two: ``int8 group 32 scale e8m0``.

    Source: OCP Microscaling Formats (MX) specification 1.0, section 5.3.4; its factor of 1/64 is in the power here.
    """

    keyword: ClassVar[str] = "mxint8"

    def encoding(self, spelled: Spelled) -> Encoding:
        """The only one."""
        return Blocked(IntGrid(8), group(32), POWERS)
