"""What was traced with nothing in it that only shows numbers in another shape on the way to yet another."""

import torch
from torch.fx import Graph, Node

_aten = torch.ops.aten
VIEWS = frozenset(
    (_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default, _aten.unsqueeze.default, _aten.squeeze.dim)
)


def tidy(graph: Graph) -> None:
    """One op in the place of several that change shapes one after the other, and none where nothing changes.

    Args:
        graph: its shapes are known, and it writes nothing in place.
    """
    for node in graph.nodes:
        if node.target in VIEWS:
            _show_at_once(node)
    graph.eliminate_dead_code()


def _show_at_once(node: Node) -> None:
    source = node
    while source.target in VIEWS:
        (source,) = source.all_input_nodes
    shape = [*node.meta["val"].shape]
    if shape == [*source.meta["val"].shape]:
        node.replace_all_uses_with(source)
        return
    node.target = _aten.reshape.default  # where the source lies otherwise, a view might not do
    node.args = source, shape
