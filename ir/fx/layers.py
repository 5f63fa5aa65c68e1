"""Finding the weights of an ATen graph: which constants its layers read, and how.

A weight may reach its layer through casts, transpositions and reshapes; the layer is still that of the constant behind.
"""

import operator
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.fx import Node

from qcc.ir.encoding.value import ValueEncoding
from qcc.ir.fx.attributes import order_of
from qcc.ir.fx.branches import bodies
from qcc.ir.fx.kinds import arguments, aten_name
from qcc.ir.fx.tensors import dtype_name
from qcc.ir.graph import layers
from qcc.ir.graph.layers import LayerOutput, Reading, Use
from qcc.ir.graph.ops import Kind, Weight
from qcc.ir.graph.view import MatrixView

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SAME = frozenset({"clone", "contiguous", "to", "_to_copy", "detach", "alias", "lift_fresh_copy"})
RESHAPES = frozenset({"view", "reshape", "_unsafe_view"})
TURNS = frozenset({"permute", "transpose", "t", "numpy_T"})


@dataclass(frozen=True)
class FoundUse:
    """A use of an operand: which, with what other input and what bias.

    ``inner``: what it is multiplied with is no value of the graph, but made by the op of its input.
    """

    weight: Node
    input: Node
    use: Use | None
    bias: Node | None = None
    biased: bool = False
    left: bool = False
    inner: bool = False


@dataclass(frozen=True)
class FxTraced:
    """A use followed back to its constant, and the view of that."""

    node: Node
    found: FoundUse
    use: Use
    constant: Node
    view: MatrixView
    holder: Node | None = None
    """The node of the main graph in whose branch or body the use lies; None where it lies in none."""


@dataclass
class _Reader:
    """Finds layers, also in branches and loop bodies: on the face they are the op's that holds them.

    Args:
        module: what holds the graphs that the graph names.
    """

    module: torch.nn.Module
    entries: dict[tuple[Node, Node], list[Node]] = field(default_factory=dict)
    """Of an op with branches and what it reads: the placeholders by which its branches get that."""

    def traced(self, nodes: Iterable[Node], constants: Mapping[Node, Node]) -> Iterator[FxTraced]:
        """The uses of constants, each of which is said by that of the main graph."""
        nodes = list(nodes)
        computed = _computed(nodes, constants)
        for node in nodes:
            for one in _traced(node, constants, computed):
                yield replace(one, constant=constants[one.constant])
            yield from self._inside(node, self.module, constants)

    def _inside(self, node: Node, module: torch.nn.Module, constants: Mapping[Node, Node]) -> Iterator[FxTraced]:
        for body in bodies(node, module):
            for inner, outer in body.fed.items():
                self.entries.setdefault((node, outer), []).append(inner)
            held = {inner: constants[outer] for inner, outer in body.fed.items() if outer in constants}
            computed = _computed(body.graph.nodes, held)
            for one in body.graph.nodes:
                for found in _traced(one, held, computed):
                    yield replace(found, constant=held[found.constant], holder=node)
                for found in self._inside(one, body.module, held):
                    yield replace(found, holder=node)

    def only_layers_read(self, value: Node, places: Container[tuple[Node, Node]]) -> bool:
        """A constant reaches nothing but layers: it may go once they do without it."""
        for node in value.users:
            if (node, value) in places:
                continue
            read = self.entries.get((node, value), [])
            if aten_name(node) in SAME | RESHAPES | TURNS:
                read = [node]
            if not read or not all(self.only_layers_read(one, places) for one in read):
                return False
        return True


def find_weights(
    nodes: Iterable[Node], constants: Mapping[Node, str], paths: Mapping[Node, str], module: torch.nn.Module
) -> tuple[Weight, ...]:
    """The weights, in the order in which their first layers run.

    Args:
        nodes: the graph, in topological order.
        constants: names of the constants.
        paths: where the module keeps them.
        module: what holds branches and loop bodies.
    """
    reader = _Reader(module)
    found = [*reader.traced(nodes, {node: node for node in constants})]
    places = {(traced.node, traced.found.weight) for traced in found}
    shared = {constants[one.constant] for one in found if not reader.only_layers_read(one.constant, places)}
    return layers.assemble([_reading(traced, constants, paths) for traced in found], shared)


def _trace(node: Node, found: FoundUse, constants: Container[Node]) -> FxTraced | None:
    """The constant behind a layer's operand; None where there is none."""
    if found.use is None:
        return None
    source, view, reshaped = found.weight, found.use.view, False
    while source not in constants:
        order = order_of(source, len(view.shape))
        if order is not None and not reshaped:
            view = view.permuted(order)
        elif aten_name(source) in RESHAPES and _keeps_type(source):
            reshaped = True
        elif aten_name(source) not in SAME:
            return None
        source = source.all_input_nodes[0]
    return FxTraced(node, found, found.use, source, view) if source.meta["val"].dtype in FLOATS else None


def _keeps_type(node: Node) -> bool:
    return bool(node.meta["val"].dtype == node.all_input_nodes[0].meta["val"].dtype)


def shape_of(node: object) -> tuple[int, ...] | None:
    """A tensor's shape if it is wholly known; None for anything else."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(value, torch.Tensor) or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(value.shape)


def _rank(node: Node) -> int | None:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, torch.Tensor) else None


def _computed(nodes: Iterable[Node], constants: Container[Node]) -> frozenset[Node]:
    """The nodes that depend on what the caller feeds."""
    found: set[Node] = set()
    for node in nodes:
        is_input = node.op == "placeholder" and node not in constants
        if is_input or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return frozenset(found)


def _traced(node: Node, constants: Container[Node], computed: Container[Node]) -> Iterator[FxTraced]:
    reader = _READERS.get(aten_name(node))
    for found in reader(arguments(node)) if reader is not None else ():
        traced = _trace(node, found, constants) if found.input in computed else None
        if traced is not None:
            yield traced


CallArguments = Mapping[str, Any]


def _linear(given: CallArguments) -> Iterator[FoundUse]:
    use = layers.right_operand(shape_of(given["weight"]), _rank(given["input"]), transposed=True)
    yield FoundUse(given["weight"], given["input"], use, given["bias"], given["bias"] is not None)


def _matmul(given: CallArguments) -> Iterator[FoundUse]:
    left, right = tuple(given.values())[:2]
    yield FoundUse(right, left, layers.right_operand(shape_of(right), _rank(left)))
    yield FoundUse(left, right, layers.left_operand(shape_of(left)), left=True)


def _addmm(given: CallArguments) -> Iterator[FoundUse]:
    left, right = given["mat1"], given["mat2"]
    bias = given["self"] if given["beta"] == 1 else None
    plain = given["alpha"] == 1 and given["beta"] == 1
    yield FoundUse(right, left, layers.right_operand(shape_of(right), 2, plain=plain), bias, True)
    yield FoundUse(left, right, layers.left_operand(shape_of(left)), None, True, left=True)


def _conv(given: CallArguments) -> Iterator[FoundUse]:
    transposed = given.get("transposed", "output_padding" in given)  # only the general one says it in so many words
    padding = given["padding"]  # a word of torch's adds nothing to a kernel of one point
    moved = {*given["stride"], *(() if isinstance(padding, str) else (1 + pad for pad in padding))}
    use = layers.filters(shape_of(given["weight"]), given["groups"], transposed, moved <= {1})
    yield FoundUse(given["weight"], given["input"], use, given["bias"], given["bias"] is not None)


def _embedding(given: CallArguments) -> Iterator[FoundUse]:
    yield FoundUse(given["weight"], given["indices"], layers.table(shape_of(given["weight"])))


def _embedding_bag(given: CallArguments) -> Iterator[FoundUse]:
    yield FoundUse(given["weight"], given["indices"], layers.table(shape_of(given["weight"])), biased=True)


def _einsum(given: CallArguments) -> Iterator[FoundUse]:
    """As of the other framework, the second operand first: it mostly is the weight."""
    (terms, result), read = layers.einsum_terms(given["equation"]), given["tensors"]
    for at in (1, 0, *range(2, len(terms))) if len(terms) == len(read) > 1 else ():
        others = [term for place, term in enumerate(terms) if place != at]
        use = layers.einsum_operand(shape_of(read[at]), terms[at], others, result)
        yield FoundUse(read[at], read[1 - at if at < 2 else 0], use, biased=True, inner=len(read) > 2)


def _index_select(given: CallArguments) -> Iterator[FoundUse]:
    if given["dim"] == 0:
        yield from _embedding({"weight": given["self"], "indices": given["index"]})


def _index(given: CallArguments) -> Iterator[FoundUse]:
    if len(given["indices"]) == 1:
        yield from _embedding({"weight": given["self"], "indices": given["indices"][0]})


def _recurrent(function: str) -> Callable[[CallArguments], Iterator[FoundUse]]:
    """Of each layer and direction the weights of its input and of its state, biases and a projection between them."""

    def read(given: CallArguments) -> Iterator[FoundUse]:
        taken = given["input"] if "input" in given else given["data"]
        directions = 2 if given["bidirectional"] else 1
        each = len(given["params"]) // (given["num_layers"] * directions)
        for at, weight in enumerate(given["params"]):
            shape = shape_of(weight)
            if shape is not None and len(shape) == 2:
                inner = at % each > 0 or at >= each * directions
                yield FoundUse(weight, taken, layers.gates(shape, function), biased=True, inner=inner)

    return read


_READERS: dict[str, Callable[[CallArguments], Iterator[FoundUse]]] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    "addmm": _addmm,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
    "einsum": _einsum,
    "embedding": _embedding,
    "embedding_bag": _embedding_bag,
    "index_select": _index_select,
    "index": _index,
    "lstm": _recurrent("lstm"),
    "gru": _recurrent("gru"),
    **dict.fromkeys(("rnn_tanh", "rnn_relu"), _recurrent("rnn")),
}


def _reading(traced: FxTraced, constants: Mapping[Node, str], paths: Mapping[Node, str]) -> Reading:
    node, recurrent = traced.node, traced.use.kind is Kind.RECURRENT  # whose module has several weights
    stack = (node.meta.get("nn_module_stack") or {}).values()
    modules = [module for module, _ in stack if module and not recurrent]
    holder = traced.holder
    return Reading(
        use=traced.use if holder is None else replace(traced.use, form_free=False),
        view=traced.view,
        dtype=dtype_name(traced.found.weight.meta["val"].dtype),
        stored=dtype_name(traced.constant.meta["val"].dtype),
        constant=constants[traced.constant],
        op=(holder or node).name,
        input="" if traced.found.inner or holder is not None else traced.found.input.name,
        result=_result(traced, constants) if holder is None else LayerOutput(_first_item(holder).name),
        module=str(modules[-1]) if modules else "",
        path=paths[traced.constant],
    )


def _result(traced: FxTraced, constants: Mapping[Node, str]) -> LayerOutput:
    """What a layer makes, together with a bias of its own or of the addition behind it."""
    node, found, use = traced.node, traced.found, traced.use
    own = LayerOutput(_first_item(node).name)
    if found.biased:
        known = found.bias is not None and _is_bias(found.bias, use, _rank(node), constants)
        return LayerOutput(node.name, constants[found.bias]) if known and found.bias is not None else own
    if use.kind is not Kind.LINEAR or found.left or len(node.users) != 1:
        return own
    (add,) = node.users
    given = arguments(add)
    if aten_name(add) != "add" or given["alpha"] != 1 or not isinstance(given["other"], Node):
        return own
    bias = given["self"] if given["other"] is node else given["other"]
    if add.meta["val"].dtype != node.meta["val"].dtype or not _is_bias(bias, use, _rank(node), constants):
        return own
    return LayerOutput(add.name, constants[bias], add.name)


def _first_item(node: Node) -> Node:
    """The first of several results, or the one that there is."""
    items = (user for user in node.users if user.target is operator.getitem and user.args[1] == 0)
    return next(items, node)


def _is_bias(node: Node, use: Use, rank: int | None, constants: Container[Node]) -> bool:
    return node in constants and layers.is_bias(shape_of(node), use, rank)


def told_of_rounding(weight: Weight, rounded: Mapping[str, ValueEncoding]) -> Weight:
    """The weight, whose layers know how what they read is rounded."""
    layers = (replace(layer, rounded=rounded.get(layer.input)) for layer in weight.layers)
    return replace(weight, layers=tuple(layers))
