"""Finding the weights of an ONNX graph: which constants its layers read, and how.

A weight may reach its layer through Identity, Cast, Transpose and Reshape; the layer is still that of the constant
behind.
"""

import ast
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from qcc.ir import layers
from qcc.ir.graph import Kind, Weight
from qcc.ir.layers import Reading, Result, Use
from qcc.ir.onnx_functions import DOMAIN
from qcc.ir.onnx_kinds import DEFAULT_DOMAINS
from qcc.ir.view import MatrixView

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
PASSING = ("Identity", "Cast", "Transpose", "Reshape")
LONGEST_SCOPES = 10_000
SCOPES = "pkg.torch.onnx.name_scopes"
GENERIC = re.compile(r"(val|onnx::\w+|node|initializer|const|t|w)?_?\d*$")


@dataclass(frozen=True)
class Traced:
    """A use of an operand followed back to its constant: the view of that, and the type in which the layer gets it."""

    node: ir.Node
    index: int
    use: Use
    constant: ir.Value
    view: MatrixView
    dtype: ir.DataType


def find_weights(graph: ir.Graph) -> tuple[Weight, ...]:
    """The weights of the main graph, in the order in which their first layers run.

    Subgraphs are opaque; a constant that one of them reads can still be a weight of the main graph.
    """
    found = [traced for node in graph for traced in _traced(node)]
    places = {(traced.node, traced.index) for traced in found}
    constants = {traced.constant.name or "": traced.constant for traced in found}
    shared = {name for name, constant in constants.items() if not _only_layers_read(constant, places)}
    return layers.assemble(map(_reading, found), shared)


def _trace(node: ir.Node, index: int, use: Use) -> Traced | None:
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
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    tensor = value.const_value
    shape = tuple(int(size) for size in tensor.shape.numpy())
    fits = prod(view.shape) == prod(shape) if reshaped else view.shape == shape
    if not fits or not prod(shape) or tensor.dtype not in FLOATS:
        return None
    return Traced(node, index, use, value, view, dtype or tensor.dtype)


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


def shape_of(value: ir.Value | None) -> tuple[int, ...] | None:
    """A value's shape if it is wholly known."""
    if value is None:
        return None
    shape = value.const_value.shape if value.const_value is not None else value.shape
    sizes = [] if shape is None else [size for size in shape if isinstance(size, int)]
    return tuple(sizes) if shape is not None and len(sizes) == len(shape) else None


def rank_of(value: ir.Value | None) -> int | None:
    """A value's rank if it is known."""
    return None if value is None or value.shape is None else len(value.shape)


def _traced(node: ir.Node) -> list[Traced]:
    if node.domain not in DEFAULT_DOMAINS or node.op_type not in _READERS or len(node.inputs) < 2 or not node.outputs:
        return []
    try:
        found = [_trace(node, index, use) for index, use in _READERS[node.op_type](node) if use is not None]
    except (TypeError, ValueError):  # an attribute is not of its operator's type
        return []
    return [traced for traced in found if traced is not None]


Uses = Iterator[tuple[int, Use | None]]


def _matmul(node: ir.Node) -> Uses:
    yield 1, layers.right_operand(shape_of(node.inputs[1]), rank_of(node.inputs[0]))
    yield 0, layers.left_operand(shape_of(node.inputs[0]))


def _gemm(node: ir.Node) -> Uses:
    get, get_int = node.attributes.get_float, node.attributes.get_int
    plain = get("alpha", 1.0) == 1 and (get("beta", 1.0) == 1 or not _has(node, 2)) and not get_int("transA", 0)
    left, right = (shape_of(value) for value in node.inputs[:2])
    if right is not None and len(right) == 2:
        yield 1, layers.right_operand(right, 2, bool(get_int("transB", 0)), plain)
    if left is not None and len(left) == 2:
        yield 0, layers.left_operand(left, bool(get_int("transA", 0)))


def _conv(node: ir.Node) -> Uses:
    groups, padding = node.attributes.get_int("group", 1), node.attributes.get_string("auto_pad", "NOTSET")
    moved = set(node.attributes.get_ints("strides", ())) | {1 + pad for pad in node.attributes.get_ints("pads", ())}
    whole = moved <= {1} and padding in ("NOTSET", "VALID")
    yield 1, layers.filters(shape_of(node.inputs[1]), groups, node.op_type == "ConvTranspose", whole)


def _gather(node: ir.Node) -> Uses:
    ids = node.inputs[1]
    dynamic = ids is not None and ids.const_value is None and ids.shape is not None
    if dynamic and node.attributes.get_int("axis", 0) in (0, -2) and not _holds_scales(node.outputs[0]):
        yield 0, layers.table(shape_of(node.inputs[0]))


def _holds_scales(value: ir.Value) -> bool:
    """The value goes into one of our own decoding functions: what is encoded already is no weight."""
    return any(
        node.domain == DOMAIN or (node.op_type in ("Unsqueeze", "Gather") and _holds_scales(node.outputs[0]))
        for node in value.consumers()
    )


_READERS = {"MatMul": _matmul, "Gemm": _gemm, "Conv": _conv, "ConvTranspose": _conv, "Gather": _gather}


def _reading(traced: Traced) -> Reading:
    node, constant = traced.node, traced.constant.name or ""
    other = node.inputs[1 - traced.index]
    path = "" if GENERIC.fullmatch(constant) else constant
    module = next((scope for scope in reversed(_scopes(node)[:-1]) if scope), "")
    if not module and not path:
        module = re.sub(r"/(MatMul|Gemm|Conv|Gather)$", "", (node.name or "").strip("/")) or constant
    return Reading(
        use=traced.use,
        view=traced.view,
        dtype=traced.dtype.numpy().name,
        stored=_stored(traced.constant),
        constant=constant,
        op=node.name or "",
        input=other.name or "" if other is not None else "",
        result=_result(node, traced.index, traced.use),
        module=_one_line(module),
        path=_one_line(path),
    )


def _stored(constant: ir.Value) -> str:
    tensor = constant.const_value
    assert tensor is not None
    return tensor.dtype.numpy().name


def _result(node: ir.Node, index: int, use: Use) -> Result:
    """What a layer makes, together with a bias of its own or of the Add behind it."""
    product = node.outputs[0]
    own = Result(product.name or "")
    if use.kind is Kind.EMBEDDING or _has(node, 2):
        added = node.inputs[2] if _has(node, 2) else None
        scaled = node.op_type == "Gemm" and node.attributes.get_float("beta", 1.0) != 1
        fits = index == 1 and added is not None and not scaled and _is_bias(added, use, 2)
        return Result(own.output, added.name) if fits and added is not None else own
    uses = product.uses()
    if use.kind is not Kind.LINEAR or index == 0 or product.is_graph_output() or len(uses) != 1:
        return own
    (add, at), *_ = uses
    if add.op_type != "Add" or add.domain not in DEFAULT_DOMAINS or add.graph is not node.graph or len(add.inputs) != 2:
        return own
    added = add.inputs[1 - at]
    if added is None or not _is_bias(added, use, rank_of(product)):
        return own
    return Result(add.outputs[0].name or "", added.name, add.name)


def _is_bias(value: ir.Value, use: Use, rank: int | None) -> bool:
    constant = value.is_initializer() and value.const_value is not None and value.dtype in FLOATS
    return constant and layers.is_bias(shape_of(value), use, rank)


def _has(node: ir.Node, index: int) -> bool:
    """The node has this input, which may be left out."""
    return len(node.inputs) > index and node.inputs[index] is not None


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
