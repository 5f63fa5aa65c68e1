"""Which codes ONNX Runtime has a compressed product for, as data: ``fused.json``.

It is a fact of the runtime's op. What the op costs is one of processors, and stands in the table of a target.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import integers

WHOLE_BYTE = 4  # 2-bit codes: ONNX Runtime 1.32 fuses other output counts too, and computes nonsense


@dataclass(frozen=True)
class Fusible:
    """A kind of codes that the runtime has a fused kernel for: its block sizes, and the opset that can express it."""

    bits: int
    symmetric: bool
    groups: tuple[int, ...]
    opset: int


@lru_cache
def fusible() -> tuple[Fusible, ...]:
    """What the runtime fuses."""
    rows = json.loads(files("qcc.ir.forms").joinpath("fused.json").read_text(encoding="utf-8"))
    return tuple(Fusible(row["bits"], row["symmetric"], tuple(row["groups"]), row["opset"]) for row in rows)


def fusible_as(encoding: Encoding, shape: tuple[int, int]) -> Fusible | None:
    """The fused kernel that takes this encoding, if the runtime has one."""
    found = integers(encoding)
    if found is None:
        return None
    block = found.block
    if block.rows != 1 or block.columns == 0 or not block.divides(shape):
        return None
    if found.bits == 2 and shape[0] % WHOLE_BYTE:
        return None
    for row in fusible():
        if (row.bits, row.symmetric) == (found.bits, found.symmetric) and block.columns in row.groups:
            return row
    return None
