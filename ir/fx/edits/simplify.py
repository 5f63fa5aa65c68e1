"""Removing what cannot change the function of an ATen graph."""

import operator
from typing import Any

import torch
from torch.fx import Graph, Node

from qcc.ir.fx.kinds import arguments, aten_name
from qcc.ir.graph.attributes import END

COPIES = frozenset({"clone", "contiguous", "detach", "alias", "lift_fresh_copy"})
SAME_DTYPE = frozenset({"to", "_to_copy"})
VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
LAYOUT = frozenset({"as_strided", "view_as_complex", "view_as_real", "view", "_unsafe_view"})  # these see strides


def share_items(graph: Graph) -> None:
    """Make one value of each result of an op that has several, and none of those that nobody reads."""
    first: dict[tuple[Any, ...], Node] = {}
    for node in [node for node in graph.nodes if is_item(node)]:
        kept = first.setdefault(node.args, node) if node.users else None
        if kept is not None and kept is not node:
            node.replace_all_uses_with(kept)
        if kept is not node:
            graph.erase_node(node)


def is_item(node: Node) -> bool:
    """The node picks one result of an op that has several."""
    return node.target is operator.getitem and isinstance(node.args[0], Node)


def remove_identities(graph: Graph) -> None:
    """Read through ops that give what they get, unless they make an output.

    A copy may give a tensor another layout in memory: views become reshapes, which take any, and a graph in which
    something else looks at the layout keeps its copies. A cast to what another tensor is names its type.
    """
    for node in graph.nodes:
        if node.target in VIEWS:
            node.target = torch.ops.aten.reshape.default
        elif node.target is torch.ops.aten.type_as.default:
            node.target = torch.ops.aten._to_copy.default
            node.args, node.kwargs = node.args[:1], {"dtype": node.meta["val"].dtype}
    nodes = list(graph.nodes)
    seen = any(_sees_memory(node) for node in nodes)
    for node in nodes:
        is_output = any(user.op == "output" for user in node.users)
        if _is_identity(node) and not is_output and not (seen and aten_name(node) in COPIES):
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)


def _sees_memory(node: Node) -> bool:
    """The node may tell a copy from what was copied: it looks at strides, writes in place, or holds a graph."""
    writes = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    return writes or node.op == "get_attr" or aten_name(node) in LAYOUT


def _is_identity(node: Node) -> bool:
    name, given = aten_name(node), arguments(node)
    if name in COPIES:
        return True
    if name in SAME_DTYPE:
        before, after = node.all_input_nodes[0].meta["val"], node.meta["val"]
        return bool(before.dtype == after.dtype and before.device == after.device)
    if name == "dropout":
        return not given["train"]
    if name != "slice":
        return False
    whole = given["end"] is None or (isinstance(given["end"], int) and given["end"] >= END)
    return given["start"] in (None, 0) and whole and given["step"] == 1
