"""Finding the weights of an ATen graph: which constants its layers read, and how.

The same rules as `onnx_layers`: a weight may reach its layer through casts, transpositions and reshapes.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from qcc.ir.fx_kinds import arguments, aten_name
from qcc.ir.fx_tensors import dtype_name
from qcc.ir.graph import Kind, Layer, Weight
from qcc.ir.view import MatrixView

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SAME = frozenset({"clone", "contiguous", "to", "_to_copy", "detach", "alias", "lift_fresh_copy"})
RESHAPES = frozenset({"view", "reshape", "_unsafe_view"})


@dataclass(frozen=True)
class Reading:
    """How an op reads a weight: which operand, as which matrix, and as which kind of layer."""

    node: Node
    weight: Node
    input: Node
    view: MatrixView
    kind: Kind
    groups: int = 1
    form_free: bool = True


def find_weights(nodes: Iterable[Node], constants: Mapping[Node, str], paths: Mapping[Node, str]) -> tuple[Weight, ...]:
    """The weights, in the order in which their first layers run.

    Args:
        nodes: the graph, in topological order.
        constants: names of the constants.
        paths: where the module keeps them.
    """
    nodes = list(nodes)
    computed = _computed(nodes, constants)
    found: dict[Node, list[tuple[Reading, MatrixView]]] = {}
    for node in nodes:
        for reading in _readings(node, computed):
            traced = trace(reading, constants)
            if traced is not None:
                found.setdefault(traced[0], []).append((reading, traced[1]))
    names = _Names()
    return tuple(_weight(constants[node], paths[node], readings, names) for node, readings in found.items())


def trace(reading: Reading, constants: Mapping[Node, str]) -> tuple[Node, MatrixView] | None:
    """The constant behind a layer's operand and the layer's view of it; None where there is none."""
    node, view, reshaped = reading.weight, reading.view, False
    while node not in constants:
        name = aten_name(node)
        order = _order(node, len(view.shape))
        if order is not None and not reshaped:
            view = view.permuted(order)
        elif name in RESHAPES:
            reshaped = True
        elif name not in SAME:
            return None
        node = node.all_input_nodes[0]
    return (node, view) if node.meta["val"].dtype in FLOATS else None


def shape_of(node: object) -> tuple[int, ...] | None:
    """A tensor's shape if it is wholly known; None for anything else."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(value, torch.Tensor) or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(value.shape)


def _computed(nodes: Iterable[Node], constants: Mapping[Node, str]) -> frozenset[Node]:
    """The nodes that depend on what the caller feeds."""
    found: set[Node] = set()
    for node in nodes:
        is_input = node.op == "placeholder" and node not in constants
        if is_input or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return frozenset(found)


def _order(node: Node, rank: int) -> tuple[int, ...] | None:
    name, given = aten_name(node), arguments(node)
    order = list(range(rank))
    if name == "permute":
        return tuple(axis % rank for axis in given["dims"])
    if name == "transpose":
        first, second = given["dim0"] % rank, given["dim1"] % rank
        order[first], order[second] = second, first
        return tuple(order)
    return tuple(order[::-1]) if name == "t" else None


def _readings(node: Node, computed: frozenset[Node]) -> Iterator[Reading]:
    reader = _READERS.get(aten_name(node))
    for reading in reader(node, arguments(node)) if reader is not None else ():
        if reading.input in computed:
            yield reading


def _linear(node: Node, given: Mapping[str, Any]) -> Iterator[Reading]:
    shape = shape_of(given["weight"])
    if shape is not None and len(shape) == 2:
        yield Reading(node, given["weight"], given["input"], MatrixView(shape, (0,)), Kind.LINEAR)


def _matmul(node: Node, given: Mapping[str, Any]) -> Iterator[Reading]:
    left, right = tuple(given.values())[:2]
    shape = shape_of(right)
    if shape is not None and len(shape) >= 2:
        rows = tuple(axis for axis in range(len(shape)) if axis != len(shape) - 2)
        yield Reading(node, right, left, MatrixView(shape, rows), Kind.LINEAR, form_free=len(shape) == 2)
    shape = shape_of(left)
    if shape is not None and len(shape) >= 2:
        yield Reading(node, left, right, MatrixView(shape, tuple(range(len(shape) - 1))), Kind.LINEAR, form_free=False)


def _addmm(node: Node, given: Mapping[str, Any]) -> Iterator[Reading]:
    shape = shape_of(given["mat2"])
    if shape is not None:
        plain = given["alpha"] == 1 and given["beta"] == 1
        yield Reading(node, given["mat2"], given["mat1"], MatrixView(shape, (1,)), Kind.LINEAR, form_free=plain)


def _conv(node: Node, given: Mapping[str, Any]) -> Iterator[Reading]:
    shape = shape_of(given["weight"])
    if shape is not None:
        transposed = given.get("transposed") or aten_name(node).startswith("conv_transpose")
        view = MatrixView(shape, (1,) if transposed else (0,))
        yield Reading(node, given["weight"], given["input"], view, Kind.CONV, given["groups"], False)


def _embedding(node: Node, given: Mapping[str, Any]) -> Iterator[Reading]:
    shape = shape_of(given["weight"])
    if shape is not None and len(shape) == 2:
        yield Reading(node, given["weight"], given["indices"], MatrixView(shape, (0,)), Kind.EMBEDDING)


def _index_select(node: Node, given: Mapping[str, Any]) -> Iterator[Reading]:
    if given["dim"] == 0:
        yield from _embedding(node, {"weight": given["self"], "indices": given["index"]})


def _index(node: Node, given: Mapping[str, Any]) -> Iterator[Reading]:
    if len(given["indices"]) == 1:
        yield from _embedding(node, {"weight": given["self"], "indices": given["indices"][0]})


_READERS: dict[str, Callable[[Node, Mapping[str, Any]], Iterator[Reading]]] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    "addmm": _addmm,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
    "embedding": _embedding,
    "index_select": _index_select,
    "index": _index,
}


def _weight(constant: str, path: str, readings: list[tuple[Reading, MatrixView]], names: "_Names") -> Weight:
    # a table's rows are what its embedding gathers; other readers follow
    first, view = next((pair for pair in readings if pair[0].kind is Kind.EMBEDDING), readings[0])
    layers = [_layer(reading, constant, path, names) for reading, _ in readings]
    layers.sort(key=lambda layer: layer.kind is not Kind.EMBEDDING)
    return Weight(layers[0].name, constant, view, dtype_name(first.weight.meta["val"].dtype), tuple(layers))


def _layer(reading: Reading, constant: str, path: str, names: "_Names") -> Layer:
    return Layer(
        name=names.unique(layer_name(reading.node, path)),
        kind=reading.kind,
        op=reading.node.name,
        weight=constant,
        input=reading.input.name,
        output=reading.node.name,
        groups=reading.groups,
        kernel=reading.view.shape[2:] if reading.kind is Kind.CONV else (),
        form_free=reading.form_free,
    )


def layer_name(node: Node, path: str) -> str:
    """What people call a layer: its module's path, else its weight's."""
    modules = [module for module, _ in node.meta.get("nn_module_stack", {}).values() if module]
    return str(modules[-1]) if modules else re.sub(r"\.weight$", "", path)


class _Names:
    """Layer names made unique: a module that runs twice gives `name` and `name#2`."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def unique(self, name: str) -> str:
        count = self._seen[name] = self._seen.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"
