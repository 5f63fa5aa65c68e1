"""Splits of constants as slices, so that each part can be a weight of its own."""

from collections.abc import Container

import torch
from torch.fx import Graph, Node

from qcc.ir.fx.edits.simplify import is_item
from qcc.ir.fx.kinds import arguments, aten_name

_aten = torch.ops.aten
SPLITS = frozenset({"split", "split_with_sizes", "chunk", "unbind", "tensor_split"})


def slice_constants(graph: Graph, constants: Container[Node]) -> None:
    """Let one op make each part of a constant.

    Rewrite:
        split(W, sizes, axis)[1]  -->  slice(W, axis, sizes[0], sizes[0] + sizes[1])
    """
    for node in [*graph.nodes]:
        if aten_name(node) not in SPLITS:
            continue
        whole, axis = node.all_input_nodes[0], arguments(node)["dim"]
        if whole not in constants or not all(is_item(user) for user in node.users):
            continue
        for item in [*node.users]:
            _make(graph, whole, axis, item)
            graph.erase_node(item)
        graph.erase_node(node)


def _make(graph: Graph, whole: Node, axis: int, item: Node) -> None:
    """A part, in place of the item of a split."""
    split, at = item.args[0], item.args[1]
    assert isinstance(split, Node) and isinstance(at, int)
    sizes = [part.shape[axis] if part.dim() == whole.meta["val"].dim() else 1 for part in split.meta["val"]]
    start = sum(sizes[:at])
    with graph.inserting_before(item):
        if aten_name(split) == "unbind":
            part = graph.call_function(_aten.select.int, (whole, axis, at))
        else:
            part = graph.call_function(_aten.slice.Tensor, (whole, axis, start, start + sizes[at]))
    part.meta = dict(item.meta)
    item.replace_all_uses_with(part)
