"""Finding the weights of an ONNX graph: which constants its layers read, and how.

A weight may reach its layer through Identity, Cast, Transpose and Reshape; the layer is still that of the constant
behind.
"""

import ast
import re
from collections.abc import Container
from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from qcc.ir.graph import layers
from qcc.ir.graph.attributes import Attributes, Opaque
from qcc.ir.graph.layers import LayerOutput, Reading, Use
from qcc.ir.graph.ops import Kind, Layer, Op, Weight
from qcc.ir.graph.view import MatrixView
from qcc.ir.onnx.file.bodies import bodies, inside
from qcc.ir.onnx.given.tensor import given_of
from qcc.ir.onnx.given.told import compressed
from qcc.ir.onnx.graph.attributes import attributes
from qcc.ir.onnx.graph.kinds import DEFAULT_DOMAINS, kind_of
from qcc.ir.onnx.graph.uses import BIASED, USES, has, rank_of, shape_of

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
PASSING = ("Identity", "Cast", "Transpose", "Reshape")
LONGEST_SCOPES = 10_000
SCOPES = "pkg.torch.onnx.name_scopes"
GENERIC = re.compile(r"(val|onnx::\w+|node|initializer|const|t|[wWrR])?_*\d*$")
LETTER = re.compile(r"[twWrR]$")  # which may be an attribute's name where the modules are told
OP = re.compile(r"/(MatMul|Gemm|Conv|Gather|Einsum|LSTM|GRU|RNN)$")


@dataclass(frozen=True)
class OnnxTraced:
    """A use of an operand followed back to its constant: the view of that, and the type in which the layer gets it.

    ``holder`` is the node of the main graph: the node itself, or the one in whose body it lies.
    """

    node: ir.Node
    holder: ir.Node
    index: int
    use: Use
    constant: ir.Value
    view: MatrixView
    dtype: ir.DataType


def find_weights(graph: ir.Graph) -> tuple[Weight, ...]:
    """The weights, in the order in which their first layers run.

    Layers of branches and loop bodies count too: on the face they are the op's that holds them.
    """
    nodes = ((node, inner) for node in graph for inner in (node, *inside(node)))
    found = [traced for node, inner in nodes for traced in _traced(inner, node)]
    places = {(traced.node, traced.index) for traced in found}
    constants = {traced.constant.name or "": traced.constant for traced in found}
    shared = {name for name, constant in constants.items() if not _only_layers_read(constant, places)}
    return layers.assemble(map(_reading, found), shared)


def _trace(node: ir.Node, holder: ir.Node, index: int, use: Use) -> OnnxTraced | None:
    """The constant behind a layer's input; None where there is none, or where it cannot be seen as the layer does."""
    value, view, reshaped = node.inputs[index], use.view, False
    dtype: ir.DataType | None = None
    while value is not None and (source := value.producer()) is not None:
        if source.domain not in DEFAULT_DOMAINS or source.op_type not in PASSING or not source.inputs:
            return None
        if source.op_type == "Transpose":
            order = tuple(source.attributes.get_ints("perm", tuple(range(len(view.shape)))[::-1]))
            if reshaped or sorted(order) != list(range(len(view.shape))):
                return None
            view = view.permuted(order)
        elif source.op_type == "Cast":
            to = ir.DataType(source.attributes.get_int("to", 0))
            if to not in FLOATS:
                return None
            dtype = dtype or to
        reshaped |= source.op_type == "Reshape"
        value = source.inputs[0]
    if value is None or not value.is_initializer() or value.const_value is None or value.graph is not holder.graph:
        return None
    tensor = value.const_value
    shape = tuple(int(size) for size in tensor.shape.numpy())
    fits = prod(view.shape) == prod(shape) if reshaped else view.shape == shape
    if not fits or not prod(shape) or tensor.dtype not in FLOATS:
        return None
    return OnnxTraced(node, holder, index, use, value, view, dtype or tensor.dtype)


def _only_layers_read(value: ir.Value, places: Container[tuple[ir.Node, int]]) -> bool:
    """A constant reaches nothing but layers: it may go once they do without it."""
    if value.is_graph_output():
        return False
    for node, index in value.uses():
        passes = node.domain in DEFAULT_DOMAINS and node.op_type in PASSING and index == 0
        if (node, index) in places:
            continue
        if not passes or not all(_only_layers_read(output, places) for output in node.outputs):
            return False
    return True


def _traced(node: ir.Node, holder: ir.Node) -> list[OnnxTraced]:
    if node.domain not in DEFAULT_DOMAINS or node.op_type not in USES or len(node.inputs) < 2 or not node.outputs:
        return []
    try:
        found = [_trace(node, holder, index, use) for index, use in USES[node.op_type](node) if use is not None]
    except (TypeError, ValueError):  # an attribute is not of its operator's type
        return []
    return [traced for traced in found if traced is not None]


def _reading(traced: OnnxTraced) -> Reading:
    node, holder, constant = traced.node, traced.holder, traced.constant.name or ""
    given = given_of(traced.constant)
    inner = node is not holder
    scopes = _scopes(node)
    path = "" if GENERIC.fullmatch(constant) and not (scopes and LETTER.match(constant)) else constant
    module = next((scope for scope in reversed(scopes[:-1]) if scope), "")
    if not module and not path:
        module = OP.sub("", (node.name or "").strip("/")) or constant
    if not path and traced.use.kind is Kind.RECURRENT:
        module += (".input", ".hidden")[traced.index - 1]
    return Reading(
        use=replace(traced.use, form_free=False) if inner else traced.use,
        view=traced.view,
        dtype=traced.dtype.numpy().name,
        stored=_stored(traced.constant),
        constant=constant,
        op=holder.name or "",
        input="" if inner else _other(traced),
        result=LayerOutput(_first_output(holder)) if inner else _result(node, traced.index, traced.use),
        module=_one_line(module),
        path=_one_line(path),
        given=None if given is None else compressed(given, traced.view),
    )


def _other(traced: OnnxTraced) -> str:
    """What a weight is multiplied with; none if that is not one value of the graph."""
    reads, index = traced.node.inputs, traced.index
    if traced.use.kind is Kind.RECURRENT:
        other = reads[0] if index == 1 else None  # the hidden state is a value of no graph
    else:
        other = reads[1 - index] if len(reads) == 2 or (index < 2 and traced.node.op_type != "Einsum") else None
    return "" if other is None else other.name or ""


def _first_output(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), "")


def _stored(constant: ir.Value) -> str:
    tensor = constant.const_value
    assert tensor is not None
    return tensor.dtype.numpy().name


def _result(node: ir.Node, index: int, use: Use) -> LayerOutput:
    """What a layer makes, together with a bias of its own or of the Add behind it."""
    product = node.outputs[0]
    own = LayerOutput(_first_output(node))
    if node.op_type not in BIASED and use.kind is not Kind.EMBEDDING:
        return own
    if use.kind is Kind.EMBEDDING or has(node, 2):
        added = node.inputs[2] if has(node, 2) else None
        scaled = node.op_type == "Gemm" and node.attributes.get_float("beta", 1.0) != 1
        fits = index == 1 and added is not None and not scaled and _is_bias(added, use, 2)
        return LayerOutput(own.output, added.name) if fits and added is not None else own
    uses = product.uses()
    if use.kind is not Kind.LINEAR or index == 0 or product.is_graph_output() or len(uses) != 1:
        return own
    (add, at), *_ = uses
    if add.op_type != "Add" or add.domain not in DEFAULT_DOMAINS or add.graph is not node.graph or len(add.inputs) != 2:
        return own
    added = add.inputs[1 - at]
    if added is None or not _is_bias(added, use, rank_of(product)):
        return own
    return LayerOutput(add.outputs[0].name or "", added.name, add.name)


def _is_bias(value: ir.Value, use: Use, rank: int | None) -> bool:
    constant = value.is_initializer() and value.const_value is not None and value.dtype in FLOATS
    return constant and layers.is_bias(shape_of(value), use, rank)


def _scopes(node: ir.Node) -> list[str]:
    """The modules that torch says a node comes from; none where the metadata is not what torch writes."""
    text = node.metadata_props.get(SCOPES, "")
    if len(text) > LONGEST_SCOPES:
        return []
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return []
    is_list = isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes)
    return scopes if is_list else []


def _one_line(name: str) -> str:
    """Names stand in one-line reports."""
    return "".join(letter if letter.isprintable() else "_" for letter in name)


def op_of(node: ir.Node, layer: Layer | None, opset: int) -> Op:
    """An op of the Graph face; ``layer`` where it reads a weight."""
    layer = layer if node.op_type in USES else None  # else it lies in a body
    kind, function = kind_of(node, None if layer is None else layer.kind)
    found: Attributes = {}
    try:
        found = attributes(node, kind, function, opset)
    except Opaque:
        kind, function = (kind, function) if layer else (Kind.OTHER, node.op_type)
    inputs = [value.name or "" if value is not None else "" for value in node.inputs]
    while inputs and not inputs[-1]:
        inputs.pop()
    inputs += _captured(node)
    return Op(node.name or "", kind, function, tuple(inputs), tuple(value.name or "" for value in node.outputs), found)


def _captured(node: ir.Node) -> list[str]:
    """What the branches or the body of a node read from around it."""
    found: dict[str, None] = {}
    for part in bodies(node):
        read = [value for inner in part.all_nodes() for value in inner.inputs]
        read += [value for graph in (part, *part.subgraphs()) for value in graph.outputs]
        found.update((value.name or "", None) for value in read if value is not None and value.graph is node.graph)
    return list(found)
