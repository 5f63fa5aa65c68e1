"""Putting weights that came compressed back as they came, where nobody has changed them: see `tensor`."""

import onnx_ir as ir

from qcc.ir.graph.edits import fresh
from qcc.ir.onnx.file.bodies import values
from qcc.ir.onnx.given.lift import CONTRIB, PRODUCT, swap
from qcc.ir.onnx.given.tensor import DEFAULT, Given, alike, given_of, register


def put_back(model: ir.Model) -> frozenset[str]:
    """``constant  -->  Decode(constants)``, in place; the names of what now makes the weights, or multiplies them."""
    taken = {value.name or "" for value in values(model.graph)}
    taken |= {node.name or "" for node in model.graph.all_nodes()}
    first, made = next(iter(model.graph), None), list[str]()
    for value in list(model.graph.initializers.values()):
        given = given_of(value)
        if given is None or not value.uses() or value.is_graph_output():
            continue
        if given.product is None:
            made.append(_restore(model, value, given, first, taken))
        elif all(_multiplies(node, at) for node, at in value.uses()):
            made += _put_together(model, value, given, given.product, taken)
    return frozenset(made)


def _restore(model: ir.Model, value: ir.Value, given: Given, first: ir.Node | None, taken: set[str]) -> str:
    del model.graph.initializers[value.name or ""]
    taken.discard(value.name or "")
    known = {one: _constant(model.graph, one, taken) for one in given.piece.reads}
    nodes = given.piece.copied(known)
    for node in nodes:
        node.name = fresh(node.name or "given", taken)
        for output in node.outputs:
            output.name = fresh(output.name or "given", taken)
            taken.add(output.name)
        taken.add(node.name)
        assert first is not None  # something reads the value
        model.graph.insert_before(first, node)
    for function in given.piece.functions:
        model.functions.setdefault(function.identifier(), function.clone())
    value.replace_all_uses_with(known[given.piece.makes])
    return known[given.piece.makes].name or ""


def _put_together(model: ir.Model, value: ir.Value, given: Given, product: ir.Node, taken: set[str]) -> list[str]:
    known = {one: _constant(model.graph, one, taken) for one in given.piece.reads}
    names = list[str]()
    for node, _ in list(value.uses()):
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        reads = [node.inputs[0], *(None if one is None else known[one] for one in product.inputs[1:])]
        made = ir.Node(CONTRIB, PRODUCT, reads, list(product.attributes.values()), name=node.name)
        graph.insert_before(node, made)
        swap(node, node.outputs[0], made.outputs[0])
        names.append(made.outputs[0].name or "")
    del model.graph.initializers[value.name or ""]
    model.graph.opset_imports.setdefault(CONTRIB, 1)
    return names


def _constant(graph: ir.Graph, value: ir.Value, taken: set[str]) -> ir.Value:
    """A constant as it came: the one that there is, if it is the same."""
    there = graph.initializers.get(value.name or "")
    if there is not None and there.const_value is value.const_value:
        return there
    made = alike(value)
    register(graph, made, fresh(value.name or "given", taken), taken)
    return made


def _multiplies(node: ir.Node, position: int) -> bool:
    return node.op_type == "MatMul" and node.domain in DEFAULT and position == 1
