"""Ops that write into what another op has just made, as the ops that make something new.

A module's ``relu_`` or ``+=`` mostly works on the fresh result of a layer: then what is written in place is what all
later readers see. torch's own decomposition says the same of any program, but traces all of it anew, which takes as
long as the export did.
"""

import torch
from torch.fx import Graph, Node

from qcc.ir.fx.kinds import aten_name

# ops that always make a tensor of their own; many others may give back what they were given, `dropout` for one
FRESH = frozenset(
    {
        *("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        *("linear", "addmm", "mm", "bmm", "matmul", "baddbmm", "embedding"),
        *("batch_norm", "layer_norm", "group_norm", "instance_norm"),
        *("add", "sub", "mul", "div", "relu", "silu", "gelu", "sigmoid", "tanh", "hardtanh", "hardswish", "leaky_relu"),
        *("cat", "softmax", "max_pool2d", "avg_pool2d"),
    }
)


def make_anew(graph: Graph) -> None:
    """Replace ops that write in place where what they write into is fresh, and read by none before them."""
    for node in list(graph.nodes):
        other = _functional(node)
        if other is None:
            continue
        source = node.args[0]
        if not isinstance(source, Node) or not _is_fresh(source) or node != _first_reader(source):
            continue
        node.target = other
        for reader in [user for user in source.users if user is not node]:
            reader.replace_input_with(source, node)


def _functional(node: Node) -> torch._ops.OpOverload | None:
    """The op that makes what a node writes into its first argument, and nothing else."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    name, written = aten_name(node), [one.alias_info is not None and one.alias_info.is_write for one in _given(target)]
    if not name.endswith("_") or written != [True] + [False] * (len(written) - 1):
        return None
    packet = getattr(torch.ops.aten, name.rstrip("_"), None)
    found = getattr(packet, target._overloadname, None)
    if not isinstance(found, torch._ops.OpOverload) or found._schema.is_mutable:
        return None
    same = [(one.name, str(one.type)) for one in _given(found)] == [(one.name, str(one.type)) for one in _given(target)]
    return found if same and all(one.alias_info is None for one in found._schema.returns) else None


def _given(target: torch._ops.OpOverload) -> list[torch.Argument]:
    return list(target._schema.arguments)


def _is_fresh(node: Node) -> bool:
    return node.op == "call_function" and aten_name(node) in FRESH


def _first_reader(source: Node) -> Node | None:
    after = source.next
    while after.op != "root":
        if source in after.all_input_nodes:
            return after
        after = after.next
    return None
