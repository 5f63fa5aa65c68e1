"""Walking a graph's ops in order: to each its rule."""

from qcc.ir.axes.moves import concat, gather, reshape, split, transpose
from qcc.ir.axes.norms import attention, norm
from qcc.ir.axes.rules import AxisRule, binary, conv, elementwise, embedding, matmul, pool, reduce, softmax
from qcc.ir.axes.trace import Holder, Trace
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op


def trace(graph: Graph) -> Trace:
    """The dims of all values of a graph, and how its ops relate them."""
    ops = graph.ops()
    readers: dict[str, list[Op]] = {}
    for op in ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)
    traced = Trace(graph, frozenset(weight.constant for weight in graph.weights()), readers=readers)
    for value in graph.inputs:
        _hold(traced, value.name, f"`{value.name}` is an input of the model")
    for weight in graph.weights():
        if traced.shape(weight.constant) != weight.view.shape:
            _hold(traced, weight.constant, "it is stored in another shape than its layer reads")
    for op in ops:
        if op.outputs:
            _visit(traced, op)
    for value in graph.outputs:
        _hold(traced, value.name, f"`{value.name}` is an output of the model")
    return traced


def _visit(traced: Trace, op: Op) -> None:
    """Follow one op by its rule.

    A rule knows its op as it should be. Types may be wrong, ranks unknown or sizes zero, so whatever it trips over
    makes the op opaque: that costs opportunity, never correctness.
    """
    known = len(traced.relations)
    try:
        _RULES.get(op.kind, Trace.opaque)(traced, op)
    except Exception:
        del traced.relations[known:]
        traced.opaque(op, f"`{op.function}` has axes that are not understood")


def _constant(traced: Trace, op: Op) -> None:
    """A value made of sizes: what it reads keeps its channels."""
    traced.settle(op, f"`{op.function}` makes it")


def _hold(traced: Trace, name: str, reason: str) -> None:
    place = Holder(name)
    for axis in range(len(traced.axes(place) or ())):
        traced.hold(place, axis, reason)


_RULES: dict[Kind, AxisRule] = {
    Kind.LINEAR: matmul,
    Kind.MATMUL: matmul,
    Kind.CONV: conv,
    Kind.EMBEDDING: embedding,
    Kind.ELEMENTWISE: elementwise,
    Kind.BINARY: binary,
    Kind.NORM: norm,
    Kind.SOFTMAX: softmax,
    Kind.ATTENTION: attention,
    Kind.RESHAPE: reshape,
    Kind.TRANSPOSE: transpose,
    Kind.CONCAT: concat,
    Kind.SPLIT: split,
    Kind.GATHER: gather,
    Kind.POOL: pool,
    Kind.REDUCE: reduce,
    Kind.CONSTANT: _constant,
}
