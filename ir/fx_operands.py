"""What an ATen op reads, in the order that the Graph face gives its function."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from qcc.ir.fx_kinds import KINDS, arguments, aten_name
from qcc.ir.fx_tensors import to_array
from qcc.ir.graph import Kind


@dataclass(frozen=True)
class Number:
    """A number written into a call, where other frameworks would read a constant."""

    argument: str
    array: np.ndarray


Operand = Node | Number | None

# the arguments that the face sees, where that is not all tensors as the schema has them
_ORDERS = {
    "addmm": ("mat1", "mat2", "self"),
    "rsub": ("other", "self"),
    "masked_fill": ("mask", "value", "self"),
    "where": ("condition", "self", "other"),
    "clamp": ("self", "min", "max"),
    "clamp_min": ("self", "min"),
    "clamp_max": ("self", "", "max"),
    "hardtanh": ("self", "min_val", "max_val"),
    "relu6": ("self", "min_val", "max_val"),
    "pow": ("self", "exponent"),
    "select": ("self", "index"),
}
_BINARY = ("self", "other")


def operands(node: Node) -> tuple[Operand, ...]:
    """What an op reads; None for an optional operand left out, except at the end."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return tuple(node.all_input_nodes)
    given, name = arguments(node), aten_name(node)
    order = _ORDERS.get(name)
    if order is None and KINDS.get(name, (None,))[0] is Kind.BINARY:
        order = _BINARY
    found = _in_order(node, given, order) if order is not None else _as_declared(node.target, given)
    while found and found[-1] is None:
        found.pop()
    return tuple(found)


def _in_order(node: Node, given: Mapping[str, Any], order: tuple[str, ...]) -> list[Operand]:
    parts: list[Operand] = []
    for name in order:
        part = given.get(name)
        if isinstance(part, (bool, int, float)):
            part = Number(name, _array(node, part))
        parts.append(part if isinstance(part, (Node, Number)) else None)
    return parts


def _as_declared(target: torch._ops.OpOverload, given: Mapping[str, Any]) -> list[Operand]:
    types = {argument.name: str(argument.type) for argument in target._schema.arguments}
    found: list[Operand] = []
    for name, value in given.items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        found += [
            part
            for part in parts
            if isinstance(part, Node) or (part is None and "Tensor" in types.get(name, "") and len(parts) == 1)
        ]
    return found


def _array(node: Node, number: float) -> np.ndarray:
    """A number in the type in which the op computes with it."""
    if aten_name(node) == "select":
        return np.asarray(number, np.int64)
    tensors = [source.meta.get("val") for source in node.all_input_nodes]
    used = [one for one in tensors if isinstance(one, torch.Tensor) and one.dtype is not torch.bool]
    dtype = torch.result_type(used[0], number) if used else torch.get_default_dtype()
    dtype = node.meta["val"].dtype if KINDS[aten_name(node)][1] == "where" else dtype
    return to_array(torch.tensor(number, dtype=dtype))
