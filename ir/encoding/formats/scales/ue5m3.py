"""Scales that are floats of 8 bits without a sign."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, Scale
from qcc.ir.encoding.grid import NumberList

BIAS = 15


def _number(code: int) -> float:
    exponent, mantissa = code >> 3, code & 7
    return float(mantissa + (8 if exponent else 0)) * 2.0 ** (max(exponent, 1) - BIAS - 3)


TABLE = NumberList("ue5m3", (*(_number(code) for code in range(255)), float("nan")))


class UnsignedFloats(Scale):
    """Floats of 8 bits without a sign, 7.6e-6 to 114688: an exponent of 5 bits where `e4m3` has a sign and 4.

    They reach as far as scales of weights do, so there is no further number for the whole weight.

    Source: the design space of FP4 formats, 2025 (arXiv:2509.17791), abstract.
    """

    name: ClassVar[str] = "ue5m3"

    def encoding(self) -> Encoding:
        """A number of the table for each block."""
        return Blocked(TABLE.grid, scale=None)
