"""Four-bit floats."""

from typing import ClassVar

import ml_dtypes

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.format import BLOCK_WORDS, Format, Spelled
from qcc.ir.encoding.grid import NumberList, numbers_of

TABLE = NumberList("fp4", numbers_of(ml_dtypes.float4_e2m1fn))
"""Those of OCP Microscaling Formats (MX) v1.0, section 5.3."""


class Fp4(Format):
    """Floats of 4 bits, 0.5 to 6 with a sign, that share a scale by block; in groups of 32 by default.

    A scale of ``e8m0`` is a power of two; one of ``e4m3`` takes 8 bits, in units of one number for the whole weight,
    and one of ``ue5m3`` 8 bits without such a unit.
    """

    keyword: ClassVar[str] = "fp4"
    variants: ClassVar[tuple[str, ...]] = ("e2m1",)
    words: ClassVar[tuple[str, ...]] = BLOCK_WORDS
    scale: ClassVar[str] = "fp16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """By block and scale."""
        return Blocked(TABLE.grid, spelled.block or group(32), spelled.scale or self.scale)


class Mxfp4(Format):
    """Floats of 4 bits in groups of 32 that share a power of two: ``fp4 group 32 scale e8m0``.

    Of the two powers beside the best scale, each group gets the one under which it errs less.

    Source: OCP Microscaling Formats (MX) specification 1.0, section 5.
    """

    keyword: ClassVar[str] = "mxfp4"

    def encoding(self, spelled: Spelled) -> Encoding:
        """The only one."""
        return Blocked(TABLE.grid, group(32), "e8m0")


class Nvfp4(Format):
    """Floats of 4 bits in groups of 16 that share a scale of 8 bits: ``fp4 group 16 scale e4m3``.

    Source: Pretraining large language models with NVFP4, NVIDIA 2025 (arXiv:2509.25149), section 2.
    """

    keyword: ClassVar[str] = "nvfp4"

    def encoding(self, spelled: Spelled) -> Encoding:
        """The only one."""
        return Blocked(TABLE.grid, group(16), "e4m3")
