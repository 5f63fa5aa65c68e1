"""The header of a GGUF file: which tensors it holds, and how.

Source: the GGUF specification and ``ggml-quants.h`` of ggml (block sizes and bytes of its types).
"""

import struct
from math import prod
from typing import BinaryIO

from qcc.ir.checkpoint.held import Held, WeightFile

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of each kind of value
MOST_TENSORS = MOST_VALUES = 1 << 20
LONGEST = 1 << 24  # bytes of a text
MOST_AXES = 8
MINIMUM = "its blocks have a minimum in fp16, where ours have whole zero points"
SUPER = "its blocks of 256 have scales of scales"
TABLE = "its blocks of 256 hold codes of a table of tuples"
TYPES: dict[int, tuple[str, int, int, str, str]] = {
    0: ("F32", 1, 4, "float", ""),
    1: ("F16", 1, 2, "fp16", ""),
    2: ("Q4_0", 32, 18, "int4 group 32", ""),
    3: ("Q4_1", 32, 20, "", MINIMUM),
    6: ("Q5_0", 32, 22, "int5 group 32", ""),
    7: ("Q5_1", 32, 24, "", MINIMUM),
    8: ("Q8_0", 32, 34, "int8 group 32", ""),
    9: ("Q8_1", 32, 36, "", "it is for activations"),
    10: ("Q2_K", 256, 84, "", SUPER),
    11: ("Q3_K", 256, 110, "", SUPER),
    12: ("Q4_K", 256, 144, "", SUPER),
    13: ("Q5_K", 256, 176, "", SUPER),
    14: ("Q6_K", 256, 210, "", SUPER),
    15: ("Q8_K", 256, 292, "", "it is for activations"),
    16: ("IQ2_XXS", 256, 66, "", TABLE),
    17: ("IQ2_XS", 256, 74, "", TABLE),
    18: ("IQ3_XXS", 256, 98, "", TABLE),
    19: ("IQ1_S", 256, 50, "", TABLE),
    20: ("IQ4_NL", 32, 18, "", "its table of 16 numbers is none of ours"),
    21: ("IQ3_S", 256, 110, "", TABLE),
    22: ("IQ2_S", 256, 82, "", TABLE),
    23: ("IQ4_XS", 256, 136, "", "its table of 16 numbers is none of ours"),
    24: ("I8", 1, 1, "", "whole numbers"),
    25: ("I16", 1, 2, "", "whole numbers"),
    26: ("I32", 1, 4, "", "whole numbers"),
    27: ("I64", 1, 8, "", "whole numbers"),
    28: ("F64", 1, 8, "float", ""),
    29: ("IQ1_M", 256, 56, "", TABLE),
    30: ("BF16", 1, 2, "bf16", ""),
    34: ("TQ1_0", 256, 54, "", "its blocks pack five ternary numbers into a byte"),
    35: ("TQ2_0", 256, 66, "", "its blocks are ternary"),
    39: ("MXFP4", 32, 17, "mxfp4", ""),
}
"""By number: the name, weights and bytes of a block, the format of ours that stores the same, or what is different."""


def read_gguf(file: BinaryIO) -> WeightFile:
    """The tensors of a file, by its header alone.

    Raises:
        ValueError: it is not one, or cut off.
    """
    reader = _Reader(file)
    if reader.take(4) != MAGIC:
        raise ValueError("it does not begin as one")
    version = reader.number("I")
    if version not in VERSIONS:
        raise ValueError(f"its version is {version}, and 2 and 3 are known")
    tensors, values = reader.number("Q"), reader.number("Q")
    if tensors > MOST_TENSORS or values > MOST_VALUES:
        raise ValueError(f"it says that it has {tensors:,} tensors and {values:,} facts")
    for _ in range(values):
        reader.text()
        reader.skip_value(reader.number("I"))
    return WeightFile(f"GGUF {version}", tuple(_tensor(reader) for _ in range(tensors)))


def _tensor(reader: "_Reader") -> Held:
    name, axes = reader.text(), reader.number("I")
    if axes > MOST_AXES:
        raise ValueError(f"`{name}` has {axes} axes")
    shape = tuple(reader.number("Q") for _ in range(axes))[::-1]  # the first one varies fastest
    kind, _ = reader.number("I"), reader.number("Q")
    known = TYPES.get(kind)
    if known is None:
        return Held(name, shape, f"type {kind}", 0, why="it is not known here")
    stored, block, size, ours, why = known
    return Held(name, shape, stored, -(-prod(shape) // block) * size, ours, why)


class _Reader:
    """Numbers and texts, one after the other."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def take(self, count: int) -> bytes:
        """So many bytes."""
        found = self._file.read(count)
        if len(found) < count:
            raise ValueError("it ends within its header")
        return found

    def number(self, kind: str) -> int:
        """A whole number without a sign."""
        return int(struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0])

    def text(self) -> str:
        """A text with its length before it."""
        size = self.number("Q")
        if size > LONGEST:
            raise ValueError(f"a text of {size:,} bytes")
        return self.take(size).decode("utf-8", "replace")

    def skip_value(self, kind: int) -> None:
        """Leave a fact out."""
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if count > MOST_VALUES or inner == ARRAY:
                raise ValueError(f"a list of {count:,}")
            for _ in range(count if inner == STRING else 0):
                self.text()
            if inner != STRING:
                self.take(count * _size(inner))
        else:
            self.take(_size(kind))


def _size(kind: int) -> int:
    if kind not in SCALARS:
        raise ValueError(f"a fact of type {kind}")
    return SCALARS[kind]
