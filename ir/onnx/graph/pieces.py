"""Finding what decodes the weights of layers: pieces of a graph that computing beforehand would only make larger."""

from collections.abc import Container, Iterator, Sequence

import onnx_ir as ir

from qcc.ir.onnx.file.domain import DOMAIN
from qcc.ir.onnx.given.lift import Found, lift_pieces
from qcc.ir.onnx.given.tensor import DEFAULT
from qcc.ir.onnx.graph.fold import RANDOM, VIEWS, is_sized, ordered, parts, size_of
from qcc.ir.onnx.graph.layers import FLOATS, PASSING
from qcc.ir.onnx.graph.uses import USES

MOST_BITS = 16  # of a code
LEAST_PARAMS = 16  # smaller constants are scales, steps and the like


class LiftWeights(ir.passes.InPlacePass):
    """Let a constant stand where ops decode a weight: see `qcc.ir.onnx.given`.

    Args:
        only: the names of the values that are meant; None for all.
    """

    def __init__(self, only: Container[str] | None = None) -> None:
        self._only = only

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lift in place."""
        found = [Found(one.nodes, one.reads, one.makes[0]) for one in parts(_decoding(model)) if len(one.makes) == 1]
        asked = [one for one in found if self._only is None or (one.makes.name or "") in self._only]
        found = [one for one in asked if _is_weight(one.makes) and _holds_codes(one.reads)]
        lift_pieces(model, found)
        return ir.passes.PassResult(model, bool(found))


def _decoding(model: ir.Model) -> list[ir.Node]:
    """The nodes whose results are known, in order; those at the end that only show a constant otherwise are left."""
    found: dict[ir.Node, None] = {}
    for node in ordered(model.graph):
        if _is_known(node, found) and is_sized(node):
            found[node] = None
    for node in reversed(list(found)):
        ends = not any(reader in found for output in node.outputs for reader in output.consumers())
        if ends and node.op_type in (*VIEWS, "Reshape"):
            del found[node]
    return list(found)


def _is_known(node: ir.Node, made: dict[ir.Node, None]) -> bool:
    if node.domain not in (*DEFAULT, DOMAIN) or node.op_type in RANDOM or any(True for _ in _bodies(node)):
        return False
    reads = [value for value in node.inputs if value is not None]
    return bool(reads) and all(value.producer() in made or _is_plain(value) for value in reads)


def _bodies(node: ir.Node) -> Iterator[ir.Attr]:
    graphs = ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS
    return (attribute for attribute in node.attributes.values() if attribute.type in graphs)


def _is_plain(value: ir.Value) -> bool:
    return value.is_initializer() and value.const_value is not None and not value.is_graph_input()


def _holds_codes(reads: Sequence[ir.Value]) -> bool:
    """The most of what is decoded are codes: floats that are spread out or scaled are no compressed weight."""
    largest = max(reads, key=size_of, default=None)
    dtype = None if largest is None or largest.const_value is None else ir.DataType(largest.const_value.dtype)
    return dtype is not None and dtype not in FLOATS and dtype.bitwidth <= MOST_BITS


def _is_weight(value: ir.Value) -> bool:
    """A matrix of floats that a layer reads."""
    shape = value.shape
    if value.dtype not in FLOATS or shape is None or len(shape) < 2 or value.is_graph_output():
        return False
    width = value.dtype.bitwidth // 8 if value.dtype else 1
    return size_of(value) >= LEAST_PARAMS * width and _is_read(value)


def _is_read(value: ir.Value) -> bool:
    """A layer reads it, through what shows it otherwise."""
    for node, at in value.uses():
        if node.domain not in DEFAULT:
            continue
        if node.op_type in USES and at in _weight_operands(node):
            return True
        if node.op_type in PASSING and at == 0 and any(_is_read(output) for output in node.outputs):
            return True
    return False


def _weight_operands(node: ir.Node) -> list[int]:
    try:
        return [position for position, use in USES[node.op_type](node) if use is not None]
    except (TypeError, ValueError):  # an attribute is not of its operator's type
        return []
