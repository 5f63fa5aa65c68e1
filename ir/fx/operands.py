"""What an ATen op reads, in the order that the Graph face gives its function."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from qcc.ir.fx.kinds import KINDS, arguments, aten_name
from qcc.ir.fx.tensors import to_array
from qcc.ir.graph.ops import Kind


@dataclass(frozen=True)
class CallNumber:
    """A number written into a call, where other frameworks would read a constant."""

    argument: str
    array: np.ndarray


@dataclass(frozen=True)
class ArgumentPlace:
    """Where an operand stands in a call: an argument's name, and which of a list it is."""

    argument: str
    index: int | None = None


FxOperand = Node | CallNumber | None

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


def operands(node: Node) -> tuple[FxOperand, ...]:
    """What an op reads; None for an optional operand left out, except at the end."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return tuple(node.all_input_nodes)
    found = [operand for _, operand in places(node)]
    while found and found[-1] is None:
        found.pop()
    return tuple(found)


def places(node: Node) -> list[tuple[ArgumentPlace, FxOperand]]:
    """Where the operands of an op stand in its call, and which; those left out at the end too."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    given, name = arguments(node), aten_name(node)
    order = _ORDERS.get(name)
    if order is None and KINDS.get(name, (None,))[0] is Kind.BINARY:
        order = _BINARY
    return _in_order(node, given, order) if order is not None else _as_declared(node.target, given)


def put(node: Node, place: ArgumentPlace, operand: Node | None) -> None:
    """Let an op read another operand at a place."""
    assert isinstance(node.target, torch._ops.OpOverload)
    value: Any = operand
    if place.index is not None:
        value = list(arguments(node)[place.argument])
        value[place.index] = operand
    position = [argument.name for argument in node.target._schema.arguments].index(place.argument)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(place.argument, value)


def takes_tensor(node: Node, place: ArgumentPlace) -> bool:
    """A place is not one for numbers only."""
    assert isinstance(node.target, torch._ops.OpOverload)
    types = (str(argument.type) for argument in node.target._schema.arguments if argument.name == place.argument)
    return any("Tensor" in found for found in types)


def _in_order(node: Node, given: Mapping[str, Any], order: tuple[str, ...]) -> list[tuple[ArgumentPlace, FxOperand]]:
    found: list[tuple[ArgumentPlace, FxOperand]] = []
    for name in order:
        part = given.get(name)
        if isinstance(part, (bool, int, float)):
            part = CallNumber(name, _array(node, part))
        found.append((ArgumentPlace(name), part if isinstance(part, (Node, CallNumber)) else None))
    return found


def _as_declared(target: torch._ops.OpOverload, given: Mapping[str, Any]) -> list[tuple[ArgumentPlace, FxOperand]]:
    types = {argument.name: str(argument.type) for argument in target._schema.arguments}
    found: list[tuple[ArgumentPlace, FxOperand]] = []
    for name, value in given.items():
        is_list = isinstance(value, (list, tuple))
        parts = value if is_list else [value]
        found += [
            (ArgumentPlace(name, index if is_list else None), part)
            for index, part in enumerate(parts)
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
