"""Two products behind each other as one op: what lies between never leaves a thread's caches, and none waits twice."""

from collections.abc import Iterator

import onnx_ir as ir

from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.op import LinearOp, OpError, parse
from qcc.ir.kernel.sequence_op import SequenceOp
from qcc.ir.onnx.emit.join import join_products, take_place
from qcc.ir.onnx.emit.kernel_body import kernel_function
from qcc.ir.onnx.file.domain import DOMAIN


def put_together(model: ir.Model) -> list[tuple[KernelOp, tuple[LinearOp, ...]]]:
    """Products of one input, and then those behind each other: the ops that are called, and what they stand for."""
    return [*join_products(model), *follow_products(model)]


def follow_products(model: ir.Model) -> list[tuple[SequenceOp, tuple[LinearOp, ...]]]:
    """Put one node in the place of two where the second multiplies what the first makes, and nothing else reads that.

    ``second(first(x))  -->  linear_..._then_linear_...(x)``, at the place of the second, where all that either reads is
    there.

    Returns:
        For each such node the op that it calls, and those that it took the place of.
    """
    made: list[tuple[SequenceOp, tuple[LinearOp, ...]]] = []
    for first, second in [*_pairs(model.graph)]:
        try:
            op = SequenceOp(parse(first.op_type), parse(second.op_type))
        except OpError:
            continue
        _replace(model, first, second, op)
        made.append((op, op.members))
    return made


def _pairs(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Nodes of ours of which one alone reads the only result of the other, once; no node stands in two pairs."""
    taken: set[ir.Node] = set()
    for second in graph:
        between = second.inputs[0] if second.domain == DOMAIN and second.inputs else None
        first = None if between is None else between.producer()
        if between is None or first is None or first.domain != DOMAIN or first in taken:
            continue
        alone = len(first.outputs) == 1 and len(between.uses()) == 1 and not between.is_graph_output()
        if alone and first.graph is graph:
            taken |= {first, second}
            yield first, second


def _replace(model: ir.Model, first: ir.Node, second: ir.Node, op: SequenceOp) -> None:
    graph = model.graph
    function = kernel_function(op, graph.opset_imports[""])
    model.functions.setdefault(function.identifier(), function)
    node = ir.Node(
        DOMAIN,
        op.name,
        [*first.inputs, *second.inputs[1:]],
        [*second.attributes.values()],
        num_outputs=len(op.outputs),
        name=second.name,
    )
    graph.insert_before(second, node)
    for old, new in zip(second.outputs, node.outputs, strict=True):
        take_place(graph, old, new)
    graph.remove([second, first], safe=True)
