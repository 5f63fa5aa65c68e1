"""Branches and loop bodies: the graphs that an op of a program runs, and what they are fed of what lies around them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class FxBody:
    """A graph that an op holds.

    ``fed``: what lies around it by its placeholders, where both are the same; not what a loop gives row by row.
    """

    module: GraphModule
    fed: Mapping[Node, Node]

    @property
    def graph(self) -> Graph:
        """Its ops."""
        return self.module.graph


def bodies(node: Node, module: torch.nn.Module) -> Iterator[FxBody]:
    """The graphs that a node runs, in the order in which it names them.

    Args:
        node: any node.
        module: what holds the graphs that the node's own graph names.
    """
    if not isinstance(node.target, torch._ops.HigherOrderOperator):
        return
    given = [one for one in pytree.tree_leaves((node.args, node.kwargs)) if isinstance(one, Node)]
    named = [getattr(module, str(one.target), None) for one in given if one.op == "get_attr"]
    around = [one for one in given if one.op != "get_attr"]
    for body in named:
        if isinstance(body, GraphModule):
            inputs = body.graph.find_nodes(op="placeholder")
            pairs = zip(reversed(inputs), reversed(around), strict=False)  # before them stands what is decided by
            yield FxBody(body, {inner: outer for inner, outer in pairs if _is_same(inner, outer)})


def _is_same(inner: Node, outer: Node) -> bool:
    one, other = inner.meta.get("val"), outer.meta.get("val")
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    return one.dtype == other.dtype and [*one.shape] == [*other.shape]
