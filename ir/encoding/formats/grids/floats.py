"""Floats of 16 bits, without scales."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT_ENCODINGS
from qcc.ir.encoding.format import Format, Spelled


class Bfloat16(Format):
    """Floats of 16 bits that reach as far as float32, with 8 digits in base two."""

    keyword: ClassVar[str] = "bf16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """The only one."""
        return FLOAT_ENCODINGS["bf16"]


class Float16(Format):
    """Floats of 16 bits up to 65504, with 11 digits in base two."""

    keyword: ClassVar[str] = "fp16"

    def encoding(self, spelled: Spelled) -> Encoding:
        """The only one."""
        return FLOAT_ENCODINGS["fp16"]
