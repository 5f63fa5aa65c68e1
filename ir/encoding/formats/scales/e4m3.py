"""Scales that are floats of 8 bits."""

from typing import ClassVar

import ml_dtypes

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, Scale
from qcc.ir.encoding.blocks import TENSOR
from qcc.ir.encoding.grid import NumberList, numbers_of

TABLE = NumberList("e4m3", numbers_of(ml_dtypes.float8_e4m3fn))


class SmallFloats(Scale):
    """Floats of 8 bits, in units of one number for the whole weight.

    Their sign puts the one level more that integers have below zero where a block needs it.
    """

    name: ClassVar[str] = "e4m3"

    def encoding(self) -> Encoding:
        """A number of the table for each block, and the unit."""
        return Blocked(TABLE.grid, TENSOR, "fp32")
