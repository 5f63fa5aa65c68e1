"""Floats of 6 and 8 bits."""

from typing import ClassVar

import ml_dtypes

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.format import BLOCK_WORDS, Format, Spelled
from qcc.ir.encoding.grid import NumberList, TableGrid, numbers_of

FP6_E2M3 = NumberList("fp6_e2m3", numbers_of(ml_dtypes.float6_e2m3fn))
FP6_E3M2 = NumberList("fp6_e3m2", numbers_of(ml_dtypes.float6_e3m2fn))
FP8_E4M3 = NumberList("fp8_e4m3", numbers_of(ml_dtypes.float8_e4m3fn))
FP8_E5M2 = NumberList(
    "fp8_e5m2", tuple(one if abs(one) < float("inf") else float("nan") for one in numbers_of(ml_dtypes.float8_e5m2))
)
"""Those of OCP Microscaling Formats (MX) v1.0, sections 5.3.1 and 5.3.2; codes of infinities and NaN stand for none."""
POWERS = "e8m0"


class Fp6(Format):
    """Floats of 6 bits that share a scale by block; in groups of 32 by default.

    ``e2m3`` has an exponent of 2 bits and ends at 7.5, ``e3m2`` one of 3 and ends at 28: it is coarser and spans more.

    Source: OCP Microscaling Formats (MX) specification 1.0, section 5.3.2, for the numbers.
    """

    keyword: ClassVar[str] = "fp6"
    variants: ClassVar[tuple[str, ...]] = ("e2m3", "e3m2")
    words: ClassVar[tuple[str, ...]] = BLOCK_WORDS
    scale: ClassVar[str] = "fp16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """By the variant, block and scale."""
        return Blocked(_grid(self, spelled), spelled.block or group(32), spelled.scale or self.scale)


class Fp8(Format):
    """Floats of 8 bits that share a scale by block.

    ``e4m3`` ends at 448, ``e5m2`` at 57344 with a bit less in its digits. A weight beyond the end becomes the last
    number; the codes of infinities and NaN are not used.

    Source: OCP 8-bit floating point specification 1.0, section 5.
    """

    keyword: ClassVar[str] = "fp8"
    variants: ClassVar[tuple[str, ...]] = ("e4m3", "e5m2")
    words: ClassVar[tuple[str, ...]] = BLOCK_WORDS
    scale: ClassVar[str] = "fp16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """By the variant, block and scale."""
        return Blocked(_grid(self, spelled), spelled.block or CHANNEL, spelled.scale or self.scale)


class Mxfp6(Format):
    """Floats of 6 bits in groups of 32 that share a power of two: ``fp6 group 32 scale e8m0``.

    Of the two powers beside the best scale, each group gets the one under which it errs less.

    Source: OCP Microscaling Formats (MX) specification 1.0, section 5.
    """

    keyword: ClassVar[str] = "mxfp6"
    variants: ClassVar[tuple[str, ...]] = Fp6.variants

    def encoding(self, spelled: Spelled) -> Encoding:
        """By the variant."""
        return Blocked(_grid(Fp6(), spelled), group(32), POWERS)


class Mxfp8(Format):
    """Floats of 8 bits in groups of 32 that share a power of two: ``fp8 group 32 scale e8m0``.

    Of the two powers beside the best scale, each group gets the one under which it errs less.

    Source: OCP Microscaling Formats (MX) specification 1.0, section 5.
    """

    keyword: ClassVar[str] = "mxfp8"
    variants: ClassVar[tuple[str, ...]] = Fp8.variants

    def encoding(self, spelled: Spelled) -> Encoding:
        """By the variant."""
        return Blocked(_grid(Fp8(), spelled), group(32), POWERS)


def _grid(family: Format, spelled: Spelled) -> TableGrid:
    return TableGrid(f"{family.keyword}_{spelled.variant or family.variants[0]}")
