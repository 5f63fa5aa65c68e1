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

from qcc.ir.graph import Kind, Layer, Weight
from qcc.ir.onnx_functions import DOMAIN
from qcc.ir.onnx_kinds import DEFAULT_DOMAINS
from qcc.ir.view import MatrixView

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
PASSING = ("Identity", "Cast", "Transpose", "Reshape")
LONGEST_SCOPES = 10_000
SCOPES = "pkg.torch.onnx.name_scopes"
GENERIC = re.compile(r"(val|onnx::\w+|node|initializer|const|t|w)?_?\d*$")


@dataclass(frozen=True)
class Reading:
    """How an op reads a weight: through which input, as which matrix, and as which kind of layer."""

    node: ir.Node
    index: int
    view: MatrixView
    kind: Kind
    groups: int = 1
    form_free: bool = True


@dataclass(frozen=True)
class Traced:
    """A reading followed back to its constant: the layer's view of that, and the type in which the layer gets it."""

    reading: Reading
    constant: ir.Value
    view: MatrixView
    dtype: ir.DataType


def find_weights(graph: ir.Graph) -> tuple[Weight, ...]:
    """The weights of the main graph, in the order in which their first layers run.

    Subgraphs are opaque; a constant that one of them reads can still be a weight of the main graph.
    """
    found: dict[str, list[Traced]] = {}
    for node in graph:
        for traced in _traced(node):
            found.setdefault(traced.constant.name or "", []).append(traced)
    names = _Names()
    return tuple(_weight(name, readings, names) for name, readings in found.items())


def trace(reading: Reading) -> Traced | None:
    """The constant behind a layer's input; None where there is none, or where it cannot be seen as the layer does."""
    value, view, reshaped = reading.node.inputs[reading.index], reading.view, False
    dtype: ir.DataType | None = None
    while value is not None and (node := value.producer()) is not None:
        if node.domain not in DEFAULT_DOMAINS or node.op_type not in PASSING or not node.inputs:
            return None
        if node.op_type == "Transpose":
            order = tuple(node.attributes.get_ints("perm", tuple(range(len(view.shape)))[::-1]))
            if reshaped or sorted(order) != list(range(len(view.shape))):
                return None
            view = view.permuted(order)
        elif node.op_type == "Cast":
            to = ir.DataType(node.attributes.get_int("to", 0))
            if to not in FLOATS:
                return None
            dtype = dtype or to
        reshaped |= node.op_type == "Reshape"
        value = node.inputs[0]
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    tensor = value.const_value
    shape = tuple(int(size) for size in tensor.shape.numpy())
    fits = prod(view.shape) == prod(shape) if reshaped else view.shape == shape
    if not fits or not prod(shape) or tensor.dtype not in FLOATS:
        return None
    return Traced(reading, value, view, dtype or tensor.dtype)


def only_layers_read(value: ir.Value, layers: Container[tuple[ir.Node, int]]) -> bool:
    """A constant reaches nothing but these layers: it may go once they do without it."""
    if value.is_graph_output():
        return False
    for node, index in value.uses():
        passes = node.domain in DEFAULT_DOMAINS and node.op_type in PASSING and index == 0
        if (node, index) in layers:
            continue
        if not passes or not all(only_layers_read(output, layers) for output in node.outputs):
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
        found = [trace(reading) for reading in _READERS[node.op_type](node)]
    except (TypeError, ValueError):  # an attribute is not of its operator's type
        return []
    return [traced for traced in found if traced is not None]


def _matmul(node: ir.Node) -> Iterator[Reading]:
    shape = shape_of(node.inputs[1])
    if shape is not None and len(shape) >= 2:
        rows = tuple(axis for axis in range(len(shape)) if axis != len(shape) - 2)
        fusible = len(shape) == 2 and (rank_of(node.inputs[0]) or 0) >= 2
        yield Reading(node, 1, MatrixView(shape, rows), Kind.LINEAR, form_free=fusible)
    shape = shape_of(node.inputs[0])
    if shape is not None and len(shape) >= 2:
        yield Reading(node, 0, MatrixView(shape, tuple(range(len(shape) - 1))), Kind.LINEAR, form_free=False)


def _gemm(node: ir.Node) -> Iterator[Reading]:
    get, get_int = node.attributes.get_float, node.attributes.get_int
    biased = len(node.inputs) > 2 and node.inputs[2] is not None
    plain = get("alpha", 1.0) == 1 and (get("beta", 1.0) == 1 or not biased) and not get_int("transA", 0)
    shape = shape_of(node.inputs[1])
    if shape is not None and len(shape) == 2:
        rows = (0,) if get_int("transB", 0) else (1,)
        yield Reading(node, 1, MatrixView(shape, rows), Kind.LINEAR, form_free=plain)
    shape = shape_of(node.inputs[0])
    if shape is not None and len(shape) == 2:
        rows = (1,) if get_int("transA", 0) else (0,)
        yield Reading(node, 0, MatrixView(shape, rows), Kind.LINEAR, form_free=False)


def _conv(node: ir.Node) -> Iterator[Reading]:
    shape = shape_of(node.inputs[1])
    if shape is not None and len(shape) >= 3:
        rows = (1,) if node.op_type == "ConvTranspose" else (0,)
        yield Reading(node, 1, MatrixView(shape, rows), Kind.CONV, node.attributes.get_int("group", 1), False)


def _gather(node: ir.Node) -> Iterator[Reading]:
    shape, ids = shape_of(node.inputs[0]), node.inputs[1]
    dynamic = ids is not None and ids.const_value is None and ids.shape is not None
    by_rows = shape is not None and len(shape) == 2 and node.attributes.get_int("axis", 0) in (0, -2)
    if shape is not None and by_rows and dynamic and not _holds_scales(node.outputs[0]):
        yield Reading(node, 0, MatrixView(shape, (0,)), Kind.EMBEDDING)


def _holds_scales(value: ir.Value) -> bool:
    """The value goes into one of our own decoding functions: what is encoded already is no weight."""
    return any(
        node.domain == DOMAIN or (node.op_type in ("Unsqueeze", "Gather") and _holds_scales(node.outputs[0]))
        for node in value.consumers()
    )


_READERS = {"MatMul": _matmul, "Gemm": _gemm, "Conv": _conv, "ConvTranspose": _conv, "Gather": _gather}


def _weight(constant: str, readings: list[Traced], names: "_Names") -> Weight:
    # a table's rows are what its embedding gathers; other readers follow
    readings = sorted(readings, key=lambda traced: traced.reading.kind is not Kind.EMBEDDING)
    first = readings[0]
    alone = only_layers_read(first.constant, {(traced.reading.node, traced.reading.index) for traced in readings})
    layers = tuple(_layer(traced.reading, constant, alone, names) for traced in readings)
    return Weight(layers[0].name, constant, first.view, first.dtype.numpy().name, layers)


def _layer(reading: Reading, constant: str, alone: bool, names: "_Names") -> Layer:
    node = reading.node
    other = node.inputs[1 - reading.index]
    return Layer(
        name=names.unique(layer_name(node, constant)),
        kind=reading.kind,
        op=node.name or "",
        weight=constant,
        input=other.name or "" if other is not None else "",
        output=node.outputs[0].name or "",
        groups=reading.groups,
        kernel=reading.view.shape[2:] if reading.kind is Kind.CONV else (),
        form_free=reading.form_free and alone,
    )


def layer_name(node: ir.Node, constant: str) -> str:
    """What people call a layer: its module's path, else its weight's name, else its node's."""
    scopes = [scope for scope in _scopes(node)[:-1] if scope]
    if scopes:
        return _one_line(scopes[-1])
    if not GENERIC.fullmatch(constant):
        return _one_line(constant.removesuffix(".weight") or constant)
    name = re.sub(r"/(MatMul|Gemm|Conv|Gather)$", "", (node.name or "").strip("/"))
    return _one_line(name or constant)


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


class _Names:
    """Layer names made unique: a module that runs twice gives `name` and `name#2`."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def unique(self, name: str) -> str:
        count, free = 1, name
        while free in self._seen:
            count += 1
            free = f"{name}#{count}"
        self._seen.add(free)
        return free
