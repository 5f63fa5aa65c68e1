"""Scales that are powers of two."""

from typing import ClassVar

import ml_dtypes

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, Scale
from qcc.ir.encoding.grid import NumberList, numbers_of

TABLE = NumberList("e8m0", numbers_of(ml_dtypes.float8_e8m0fnu))


class PowersOfTwo(Scale):
    """Powers of two, in 8 bits.

    Source: OCP Microscaling Formats (MX) specification 1.0, section 5.4.1.
    """

    name: ClassVar[str] = "e8m0"

    def encoding(self) -> Encoding:
        """A number of the table for each block."""
        return Blocked(TABLE.grid, scale=None)
