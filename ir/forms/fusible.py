"""Which codes ONNX Runtime has a compressed product for, as data: ``fused.json``.

It is a fact of the runtime's op. What the op costs is one of processors, and stands in the table of a target.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import integers


@dataclass(frozen=True)
class Fusible:
    """A kind of codes that the runtime has a fused kernel for.

    Args:
        codes: what they are, as `Blocked.kind` says it.
        groups: the sizes of blocks.
        opset: the first that can express it.
        outputs: come in multiples of that: of 2 bits ONNX Runtime 1.32 fuses others too, and computes nonsense.
    """

    codes: str
    groups: tuple[int, ...]
    opset: int
    outputs: int


@lru_cache
def fusible() -> tuple[Fusible, ...]:
    """What the runtime fuses."""
    rows = json.loads(files("qcc.ir.forms").joinpath("fused.json").read_text(encoding="utf-8"))
    return tuple(Fusible(row["codes"], tuple(row["groups"]), row["opset"], row["outputs"]) for row in rows)


def fusible_as(encoding: Encoding, shape: tuple[int, int]) -> Fusible | None:
    """The fused kernel that takes this encoding, if the runtime has one."""
    found = integers(encoding)
    if found is None:
        return None
    block = found.block
    if block.rows != 1 or block.columns == 0 or not block.divides(shape):
        return None
    for row in fusible():
        if row.codes == found.kind and block.columns in row.groups and shape[0] % row.outputs == 0:
            return row
    return None
