"""Holding a pass to what it says that it leaves as it is."""

from collections.abc import Collection

from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Invariant


def broken_promise(before: Graph, after: Graph, keeps: Collection[Invariant]) -> str:
    """What changed that a pass keeps, the function apart; empty where nothing did.

    Args:
        before: a graph.
        after: what a pass made of it.
        keeps: what it says that it leaves as it is. What is fed and returned stays in any case.
    """
    if (before.inputs, before.outputs) != (after.inputs, after.outputs):
        return "the model is fed or returns something else"
    left = {weight.name: weight for weight in after.weights()}
    for weight in before.weights():
        now = left.get(weight.name)
        if now is None and Invariant.WEIGHTS in keeps:
            return f"the weight `{weight.name}` is gone"
        if now is not None and Invariant.SHAPES in keeps and (now.shape, now.dtype) != (weight.shape, weight.dtype):
            return f"the weight `{weight.name}` has another shape or type"
        if now is not None and Invariant.WEIGHTS in keeps and len(now.layers) < len(weight.layers):
            return f"the weight `{weight.name}` loses a layer"
    return ""
