"""Four-bit floats whose scales are stored in a byte."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.format import Format, Spelled
from qcc.ir.encoding.grid import TableGrid

GRID = TableGrid("fp4")


class Mxfp4(Format):
    """Floats of 4 bits in groups of 32 that share a power of two.

    Of the two powers beside the best scale, each group gets the one under which it errs less.

    Source: OCP Microscaling Formats (MX) specification 1.0, section 5.
    """

    keyword: ClassVar[str] = "mxfp4"

    def encoding(self, spelled: Spelled) -> Encoding:
        """The only one."""
        return Blocked(GRID, group(32), "e8m0")


class Nvfp4(Format):
    """Floats of 4 bits in groups of 16 that share a scale of 8 bits, in units of one number for the whole weight.

    Source: Pretraining large language models with NVFP4, NVIDIA 2025 (arXiv:2509.25149), section 2.
    """

    keyword: ClassVar[str] = "nvfp4"

    def encoding(self, spelled: Spelled) -> Encoding:
        """The only one."""
        return Blocked(GRID, group(16), "e4m3")
