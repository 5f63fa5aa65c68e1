"""Finding the weights of an ONNX graph: which constants its layers read, and how.

A weight may reach its layer through Identity, Cast, Transpose and Reshape; the layer is still that of the constant behind.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from qcc.ir.graph import Kind, Layer, Weight
from qcc.ir.onnx_kinds import DEFAULT_DOMAINS
from qcc.ir.view import MatrixView

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
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


def find_weights(graph: ir.Graph) -> tuple[Weight, ...]:
    """The weights of the main graph, in the order in which their first layers run.

    Subgraphs are opaque; a constant that one of them reads can still be a weight of the main graph.
    """
    found: dict[str, list[tuple[Reading, MatrixView]]] = {}
    for node in graph:
        for reading in _readings(node):
            traced = trace(reading)
            if traced is not None:
                constant, view = traced
                found.setdefault(constant.name or "", []).append((reading, view))
    names = _Names()
    return tuple(_weight(graph, name, readings, names) for name, readings in found.items())


def trace(reading: Reading) -> tuple[ir.Value, MatrixView] | None:
    """The constant behind a layer's input and the layer's view of it; None where there is none."""
    value, view, reshaped = reading.node.inputs[reading.index], reading.view, False
    while value is not None and (node := value.producer()) is not None:
        if node.domain not in DEFAULT_DOMAINS:
            return None
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "Transpose" and not reshaped:
            order = node.attributes.get_ints("perm", tuple(range(len(view.shape)))[::-1])
            view = view.permuted(tuple(order))
        elif node.op_type == "Reshape" and node.inputs[1] is not None and node.inputs[1].const_value is not None:
            reshaped = True
        elif node.op_type not in ("Identity", "Cast"):
            return None
        value = source
    if value is None or not value.is_initializer() or value.const_value is None or value.const_value.dtype not in FLOATS:
        return None
    return value, view


def shape_of(value: ir.Value | None) -> tuple[int, ...] | None:
    """A value's shape if it is wholly known."""
    if value is None:
        return None
    shape = value.const_value.shape if value.const_value is not None else value.shape
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    return tuple(int(size) for size in shape if isinstance(size, int))


def _readings(node: ir.Node) -> Iterator[Reading]:
    if node.domain not in DEFAULT_DOMAINS or node.op_type not in _READERS:
        return
    yield from _READERS[node.op_type](node)


def _matmul(node: ir.Node) -> Iterator[Reading]:
    shape = shape_of(node.inputs[1])
    if shape is not None and len(shape) >= 2:
        rows = tuple(axis for axis in range(len(shape)) if axis != len(shape) - 2)
        yield Reading(node, 1, MatrixView(shape, rows), Kind.LINEAR, form_free=len(shape) == 2)
    shape = shape_of(node.inputs[0])
    if shape is not None and len(shape) >= 2:
        yield Reading(node, 0, MatrixView(shape, tuple(range(len(shape) - 1))), Kind.LINEAR, form_free=False)


def _gemm(node: ir.Node) -> Iterator[Reading]:
    get = node.attributes.get_float
    plain = get("alpha", 1.0) == 1 and get("beta", 1.0) == 1 and not node.attributes.get_int("transA", 0)
    shape = shape_of(node.inputs[1])
    if shape is not None and len(shape) == 2:
        rows = (0,) if node.attributes.get_int("transB", 0) else (1,)
        yield Reading(node, 1, MatrixView(shape, rows), Kind.LINEAR, form_free=plain)


def _conv(node: ir.Node) -> Iterator[Reading]:
    shape = shape_of(node.inputs[1])
    if shape is not None and len(shape) >= 3:
        rows = (1,) if node.op_type == "ConvTranspose" else (0,)
        yield Reading(node, 1, MatrixView(shape, rows), Kind.CONV, node.attributes.get_int("group", 1), False)


def _gather(node: ir.Node) -> Iterator[Reading]:
    shape = shape_of(node.inputs[0])
    dynamic = node.inputs[1] is not None and node.inputs[1].const_value is None
    if shape is not None and len(shape) == 2 and dynamic and node.attributes.get_int("axis", 0) == 0:
        yield Reading(node, 0, MatrixView(shape, (0,)), Kind.EMBEDDING)


_READERS = {"MatMul": _matmul, "Gemm": _gemm, "Conv": _conv, "ConvTranspose": _conv, "Gather": _gather}


def _weight(graph: ir.Graph, constant: str, readings: list[tuple[Reading, MatrixView]], names: "_Names") -> Weight:
    # a table's rows are what its embedding gathers; other readers follow
    first, view = next((pair for pair in readings if pair[0].kind is Kind.EMBEDDING), readings[0])
    layers = tuple(_layer(reading, constant, names) for reading, _ in readings)
    if len(readings) > 1:
        layers = tuple(sorted(layers, key=lambda layer: layer.kind is not Kind.EMBEDDING))
    name = layers[0].name
    source = graph.initializers[constant].const_value
    read = first.node.inputs[first.index]
    dtype = read.dtype if read is not None and read.dtype is not None else source.dtype if source is not None else FLOATS[0]
    return Weight(name, constant, view, dtype.numpy().name, layers)


def _layer(reading: Reading, constant: str, names: "_Names") -> Layer:
    node = reading.node
    other = node.inputs[1 - reading.index]
    kernel = reading.view.shape[2:] if reading.kind is Kind.CONV else ()
    return Layer(
        name=names.unique(layer_name(node, constant)),
        kind=reading.kind,
        op=node.name or "",
        weight=constant,
        input=other.name or "" if other is not None else "",
        output=node.outputs[0].name or "",
        groups=reading.groups,
        kernel=kernel,
        form_free=reading.form_free,
    )


def layer_name(node: ir.Node, constant: str) -> str:
    """What people call a layer: its module's path, else its weight's name, else its node's."""
    scopes = node.metadata_props.get(SCOPES)
    if scopes:
        parts = [scope for scope in ast.literal_eval(scopes)[:-1] if scope]
        if parts:
            return str(parts[-1])
    if not GENERIC.fullmatch(constant):
        return re.sub(r"\.weight$", "", constant)
    name = re.sub(r"/(MatMul|Gemm|Conv|Gather)$", "", (node.name or "").strip("/"))
    return name or constant


class _Names:
    """Layer names made unique: a module that runs twice gives `name` and `name#2`."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def unique(self, name: str) -> str:
        count = self._seen[name] = self._seen.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"
