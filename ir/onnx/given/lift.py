"""Putting a constant in the place of what decodes a weight: see `tensor`."""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qcc.ir.errors import ModelError
from qcc.ir.graph.edits import fresh
from qcc.ir.onnx.file.bodies import values
from qcc.ir.onnx.given.tensor import Decoding, Given, alike, register

PRODUCT, CONTRIB = "MatMulNBits", "com.microsoft"
BIAS = 5  # its position
ADDED = re.compile(r"([._](quantized|quant|codes\d*|int\d+|u?[qQ]\d*))+$")
"""What quantisers put behind the name of a weight."""


@dataclass(frozen=True)
class Found:
    """A piece where it stands: its nodes in order, what they read, and what they make."""

    nodes: Sequence[ir.Node]
    reads: Sequence[ir.Value]
    makes: ir.Value


def lift_pieces(model: ir.Model, found: Iterable[Found]) -> None:
    """``Decode(constants)  -->  constant``, in place."""
    taken = {value.name or "" for value in values(model.graph)}
    functions = model.functions
    for one in found:
        known = {value: alike(value) for value in one.reads}
        called = tuple(functions[node.op_identifier()] for node in one.nodes if node.op_identifier() in functions)
        template = Decoding(tuple(one.nodes), tuple(one.reads), one.makes, dict(model.graph.opset_imports), called)
        nodes = tuple(template.copied(known))
        reads = tuple(known[value] for value in one.reads)
        piece = Decoding(nodes, reads, known[one.makes], template.opsets, called)
        assert one.makes.dtype is not None and one.makes.shape is not None
        given = Given(piece, one.makes.dtype, ir.Shape(one.makes.shape))
        constant = ir.Value(type=one.makes.type, shape=one.makes.shape, const_value=given)
        one.makes.replace_all_uses_with(constant)
        for node in reversed(one.nodes):
            assert node.graph is not None
            node.graph.remove(node, safe=True)
        taken -= _dropped(model.graph, one.reads)
        register(model.graph, constant, fresh(_path(one.reads), taken), taken)


def lift_products(model: ir.Model, only: Container[str] | None = None) -> None:
    """``MatMulNBits(x, codes, scales, ..., bias)  -->  MatMul(x, constant) + bias``, in place.

    Args:
        model: edited.
        only: the names of the outputs of those that are meant; None for all.
    """
    taken = {value.name or "" for value in values(model.graph)}
    taken |= {node.name or "" for node in model.graph.all_nodes()}
    for node in list(model.graph.all_nodes()):
        if node.op_type != PRODUCT or node.domain != CONTRIB or not node.inputs or node.inputs[0] is None:
            continue
        asked = only is None or (node.outputs[0].name or "") in only
        given = _held(model, node) if asked else None
        if given is not None:
            _take_apart(model, node, given, taken)


def _held(model: ir.Model, node: ir.Node) -> Given | None:
    """The weight in a product; None where it is not made of constants, or the runtime does not take it."""
    reads = [value for value in node.inputs[1:BIAS] if value is not None]
    if len(reads) < 2 or not all(one.is_initializer() and one.const_value is not None for one in reads):
        return None
    assert reads[1].const_value is not None
    dtype = ir.DataType(reads[1].const_value.dtype)
    attributes = {name: one for name, one in node.attributes.items() if name != "accuracy_level"}  # exact here
    sizes = [one.value for name in "KN" if (one := attributes.get(name)) is not None]
    if dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16) or [type(size) for size in sizes] != [int, int]:
        return None
    columns, rows = sizes
    known = {value: alike(value) for value in reads}
    inputs = [None if value is None else known[value] for value in node.inputs[1:BIAS]]
    unit = _unit(columns, dtype)
    made = ir.Value(name="weight", type=ir.TensorType(dtype), shape=ir.Shape((columns, rows)))
    decode = ir.Node(CONTRIB, PRODUCT, [unit, *inputs], list(attributes.values()), outputs=[made], name="decode")
    opsets = {"": model.graph.opset_imports.get("", 17), CONTRIB: 1}
    piece = Decoding((decode,), tuple(known.values()), made, opsets, unit=unit)
    op = ir.Node(CONTRIB, PRODUCT, [None, *inputs], list(node.attributes.values()), name=node.name)
    given = Given(piece, dtype, ir.Shape((columns, rows)), op)
    try:
        return given if piece.computed().shape == (columns, rows) else None
    except ModelError:  # it will say so of the model
        return None


def _unit(size: int, dtype: ir.DataType) -> ir.Value:
    shape = ir.Shape((size, size))
    tensor = ir.LazyTensor(lambda: ir.Tensor(np.eye(size, dtype=dtype.numpy())), dtype=dtype, shape=shape)
    return ir.Value(name="unit", type=ir.TensorType(dtype), shape=shape, const_value=tensor)


def _take_apart(model: ir.Model, node: ir.Node, given: Given, taken: set[str]) -> None:
    graph, (output, *_) = node.graph, node.outputs
    assert isinstance(graph, ir.Graph)
    reads = [value for value in node.inputs[1:BIAS] if value is not None]
    bias = node.inputs[BIAS] if len(node.inputs) > BIAS else None
    weight = ir.Value(type=ir.TensorType(given.dtype), shape=ir.Shape(given.shape.numpy()), const_value=given)
    register(model.graph, weight, fresh(_path(reads), taken), taken)
    product = ir.Node("", "MatMul", [node.inputs[0], weight], name=node.name)
    graph.insert_before(node, product)
    result = product.outputs[0]
    if bias is not None:
        result.name = fresh(f"{output.name}.product", taken)
        taken.add(result.name)
        added = ir.Node("", "Add", [result, bias], name=fresh(f"{node.name}.bias", taken))
        graph.insert_before(node, added)
        result = added.outputs[0]
    swap(node, output, result)
    _dropped(model.graph, reads)


def swap(node: ir.Node, output: ir.Value, result: ir.Value) -> None:
    """Let all that reads a node's output read another value, which takes over its name; the node goes."""
    name, graph = output.name, node.graph
    assert graph is not None
    result.type, result.shape = output.type, output.shape
    output.replace_all_uses_with(result, replace_graph_outputs=output.is_graph_output())
    graph.remove(node, safe=True)
    output.name, result.name = f"{name}.gone", name


def _dropped(graph: ir.Graph, reads: Iterable[ir.Value]) -> set[str]:
    """Let constants go that nobody reads; their names."""
    gone = set[str]()
    for value in reads:
        name = value.name or ""
        if not value.uses() and not value.is_graph_output() and name in graph.initializers:
            del graph.initializers[name]
            gone.add(name)
    return gone


def _path(reads: Iterable[ir.Value]) -> str:
    """What the weight is called: as the largest of its constants, less what quantisers add."""
    largest = max(reads, key=lambda value: 0 if value.const_value is None else value.const_value.nbytes)
    return ADDED.sub("", largest.name or "") or "weight"
