"""Which canonical kind and function an ATen op is. An op that no definition names is opaque, never wrong."""

from typing import Any

import torch
from torch.fx import Node

from qcc.ir.graph.functions import kinds
from qcc.ir.graph.ops import Kind

KINDS = kinds(lambda one: one.aten) | {"view.dtype": (Kind.OTHER, "view.dtype")}  # not what its other overload does
_IMPLIED = {"relu6": {"min_val": 0.0, "max_val": 6.0}}
WHOLE = frozenset({"embedding_bag"})
"""Ops that do more than the layers in them: nothing is known of their axes."""
LAYER_FUNCTIONS = {Kind.LINEAR: "linear", Kind.EMBEDDING: "embedding"}


def aten_name(node: Node) -> str:
    """The name of an ATen op without namespace and overload; empty for anything else."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return ""
    return str(node.target.overloadpacket.__name__)


def kind_of(node: Node, layer: Kind | None = None) -> tuple[Kind, str]:
    """The kind and function of a node; ``layer`` is the kind that `fx_layers` tells it to be, if it does."""
    name = aten_name(node)
    if name and isinstance(node.target, torch._ops.OpOverload):
        known = KINDS.get(f"{name}.{node.target._overloadname}") or KINDS.get(name, (Kind.OTHER, name))
        if name == "convolution" and arguments(node)["transposed"]:
            known = (Kind.CONV, "conv_transpose")
        if known[1] == "adaptive_avg_pool" and all(size == 1 for size in arguments(node)["output_size"]):
            known = (Kind.REDUCE, "mean")
        if name in WHOLE:
            return Kind.OTHER, name
        return known if layer is None else (layer, LAYER_FUNCTIONS.get(layer, known[1]))
    if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool, int, float)):
        return Kind.CONSTANT, "shape"  # arithmetic on sizes
    return Kind.OTHER, getattr(node.target, "__name__", str(node.target))


def is_check(node: Node) -> bool:
    """The op has no result: torch.export's assertions on sizes and types."""
    return isinstance(node.target, torch._ops.OpOverload) and not node.target._schema.returns


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of an ATen op by their names in its schema, in its order, defaults included."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {}
    declared = node.target._schema.arguments
    bound = {argument.name: argument.default_value for argument in declared}
    bound.update(zip(bound, node.args, strict=False))
    return {**bound, **node.kwargs, **_IMPLIED.get(aten_name(node), {})}
