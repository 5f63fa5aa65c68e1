"""What forms of a layer were measured to cost, as data: ``onnxruntime.json``, one table for each instruction set.

``python -m benchmarks.capabilities --write`` measures the machine at hand and replaces the rows of its instruction set,
and no others. A file that is built for named processors is decided by the tables of their instruction sets; one that is
to run anywhere, or for a processor of which there is no table, by all tables that there are. The rule is the same: the
worst of them counts, so that a form is taken where none was measured slower than the float product, in the geometric
mean over the rows of activations. Nothing here looks at the machine: the same input gives the same bytes.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from math import prod
from typing import Any

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, integers
from qcc.ir.graph.form import Cost

WHOLE_BYTE = 4  # 2-bit codes: ONNX Runtime 1.32 fuses other output counts too, and computes nonsense
LEVEL = "level 4"  # the accuracy at which the runtime fuses, unless a session asks for another
KERNEL_GROUP = 32  # inputs that share a scale in kernels that were measured by groups

Ratios = Mapping[int, float]
"""Time over the float product's, by the number of rows of the activation; above 1 is slower."""


@dataclass(frozen=True)
class Capability:
    """A kind of codes that the runtime has a fused kernel for: its block sizes, and the opset that can express it."""

    bits: int
    symmetric: bool
    groups: tuple[int, ...]
    opset: int


@dataclass(frozen=True)
class Way:
    """How a layer was computed when it was measured.

    Args:
        form: ``fused``, or ``kernel`` for one of ours.
        bits: of a code, 16 for bfloat16.
        symmetric: there is no zero point.
        group: inputs that share a scale; 0 for all of them.
        activations: how they are rounded: the runtime's ``level 4`` (to int8) or ``level 0`` (not), or as the policy
            spells it for kernels.
    """

    form: str
    bits: int
    symmetric: bool
    group: int
    activations: str


CapabilityTable = Mapping[Way, Ratios]


@lru_cache
def capabilities() -> tuple[Capability, ...]:
    """What the runtime fuses."""
    rows = _table()["fused"]
    return tuple(Capability(row["bits"], row["symmetric"], tuple(row["groups"]), row["opset"]) for row in rows)


@lru_cache
def measurements() -> Mapping[str, CapabilityTable]:
    """The committed measurements, by instruction set."""
    return {name: {_way(row): _ratios(row) for row in one["rows"]} for name, one in _table()["measured"].items()}


def fused_capability(encoding: Encoding, shape: tuple[int, int]) -> Capability | None:
    """The fused kernel that takes this encoding, if the runtime has one."""
    found = integers(encoding)
    if found is None:
        return None
    block = found.block
    if block.rows != 1 or block.columns == 0 or not block.divides(shape):
        return None
    if found.bits == 2 and shape[0] % WHOLE_BYTE:
        return None
    for row in capabilities():
        if (row.bits, row.symmetric) == (found.bits, found.symmetric) and block.columns in row.groups:
            return row
    return None


def fused_cost(encoding: Encoding, instructions: Collection[str] = ()) -> Cost:
    """What the fused kernel of an encoding that has one costs where a file is to run; no names mean anywhere."""
    assert isinstance(encoding, Blocked)
    way = Way("fused", encoding.bits, encoding.symmetric, encoding.block.columns, LEVEL)
    known = measurements()
    asked = instructions if instructions and all(name in known for name in instructions) else known
    return _worst(way, asked)


def kernel_cost(
    encoding: Encoding, shape: tuple[int, int], activations: str, instructions: Collection[str]
) -> Cost | None:
    """What a kernel of ours costs on these instruction sets; None where one of them was not measured.

    Groups of any size, zero points and tables count as what they are like: integers of as many bits in groups of 32
    without zero points.
    """
    assert isinstance(encoding, Blocked)
    group = 0 if encoding.scale is None or encoding.block.grid(shape)[1] == 1 else KERNEL_GROUP
    way = Way("kernel", encoding.bits, True, group, activations)
    known = measurements()
    if not instructions or not all(way in known.get(name, {}) for name in instructions):
        return None
    return _worst(way, instructions)


def _worst(way: Way, instructions: Iterable[str]) -> Cost:
    costs = [Cost(mean(measurements()[name][way]), name) for name in instructions]
    return max(costs, key=lambda cost: cost.ratio)


def mean(ratios: Ratios) -> float:
    """Geometric mean over the measured row counts: neither one token nor a large batch is favoured."""
    return float(prod(ratios.values()) ** (1 / len(ratios)))


def _way(row: Mapping[str, Any]) -> Way:
    return Way(**{field.name: row[field.name] for field in fields(Way)})


def _ratios(row: Mapping[str, Any]) -> Ratios:
    return {int(count): ratio for count, ratio in row["ratio"].items()}


@lru_cache
def _table() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(files("qcc.ir.forms").joinpath("onnxruntime.json").read_text(encoding="utf-8"))
    return read
