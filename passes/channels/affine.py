"""What scaling and shifting the channels of a value does to the layers beside it, in their weights and biases."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Layer, Op, Weight

LayerUse = tuple[Weight, Layer]


@dataclass(frozen=True)
class Wiring:
    """Who makes and who reads each value of a graph, and which op is which layer.

    Args:
        ops: by name.
        makers: the op that makes a value.
        readers: the ops that read a value or constant, with the position of the operand.
        outputs: of the graph.
        layers: by their op; an op that is several layers is none.
    """

    ops: Mapping[str, Op]
    makers: Mapping[str, Op]
    readers: Mapping[str, Sequence[tuple[Op, int]]]
    outputs: frozenset[str]
    layers: Mapping[str, LayerUse]

    @classmethod
    def of(cls, graph: Graph) -> "Wiring":
        """Look at a graph as it is now."""
        ops = graph.ops()
        readers: dict[str, list[tuple[Op, int]]] = {}
        for op in ops:
            for position, name in enumerate(op.inputs):
                readers.setdefault(name, []).append((op, position))
        uses = [(weight, layer) for weight in graph.weights() for layer in weight.layers]
        count = Counter(layer.op for _, layer in uses)
        kinds = {op.name: op.kind for op in ops}
        return cls(
            {op.name: op for op in ops},
            {name: op for op in ops for name in op.outputs if name},
            readers,
            frozenset(value.name for value in graph.outputs),
            {use[1].op: use for use in uses if count[use[1].op] == 1 and kinds[use[1].op] is use[1].kind},
        )

    def reads_alone(self, value: str) -> Op | None:
        """The only op that reads a value, None where there are others or the value is an output."""
        found = self.readers.get(value, ())
        return found[0][0] if len(found) == 1 and value not in self.outputs else None


def takes_affine(wiring: Wiring, use: LayerUse, value: str | None = None) -> str:
    """Why the channels of a layer cannot be scaled and shifted by its weight and bias; empty if they can.

    Args:
        wiring: of the graph.
        use: the layer.
        value: of what the layer reads; None for what it makes.
    """
    weight, layer = use
    op = wiring.ops[layer.op]
    if len(weight.layers) > 1 or len(wiring.readers.get(weight.constant, ())) > 1:
        return f"the weight of `{layer.name}` is read elsewhere, too"
    if layer.kind not in (Kind.LINEAR, Kind.CONV) or (layer.kind is Kind.LINEAR and not layer.form_free):
        return f"`{layer.name}` is no plain product with a weight"
    place = bias_place(wiring, layer)
    if place is None and (layer.bias is not None or (len(op.inputs) > 2 and op.inputs[2])):
        return f"the bias of `{layer.name}` is no constant vector"
    if value is None:
        return ""
    if layer.input != value or op.inputs[0] != value:
        return f"`{layer.name}` reads it in another place"
    if layer.kind is Kind.CONV and (op.function != "conv" or set(_numbers(op, "pads")) != {0}):
        return f"`{layer.name}` pads it"
    return ""


def bias_place(wiring: Wiring, layer: Layer) -> tuple[Op, int] | None:
    """The op that adds a layer's bias, and the operand."""
    op = wiring.ops[layer.bias_op or layer.op]
    if layer.bias is None or layer.bias not in op.inputs:
        return None
    return op, op.inputs.index(layer.bias)


def scale_rows(graph: Graph, use: LayerUse, scale: Array) -> None:
    """Multiply what a layer makes, bias apart, by a number for each channel."""
    weight, layer = use
    array = _wide(graph, weight)
    if layer.kind is Kind.CONV and weight.view.out_axes == (1,):  # transposed: [in, out of one group, ...]
        groups = layer.groups
        parts = array.reshape(groups, array.shape[0] // groups, array.shape[1], -1)
        _put(graph, weight, (parts * scale.reshape(groups, 1, -1, 1)).reshape(array.shape))
    else:
        graph.replace_matrix(weight, weight.view.matrix(array) * scale[:, None])


def scale_columns(graph: Graph, use: LayerUse, scale: Array) -> None:
    """Multiply what a layer reads by a number for each channel; it is a linear layer or a plain convolution."""
    weight, layer = use
    array = _wide(graph, weight)
    parts = _by_group(weight, layer, array) * scale.reshape(layer.groups, 1, -1, 1)
    graph.replace_matrix(weight, parts.reshape(weight.shape))


def response(graph: Graph, use: LayerUse, shift: Array) -> Array:
    """What a linear layer or an unpadded convolution makes of a value that is one number a channel everywhere."""
    weight, layer = use
    window = _by_group(weight, layer, _wide(graph, weight)).sum(-1)
    return np.asarray((window @ shift.reshape(layer.groups, -1, 1)).reshape(-1))


def bias_of(graph: Graph, layer: Layer, size: int) -> Array:
    """A layer's bias, zeros where it has none."""
    array = None if layer.bias is None else graph.constant(layer.bias)
    return np.zeros(size) if array is None else array.reshape(-1).astype(np.float64)


def put_bias(graph: Graph, wiring: Wiring, use: LayerUse, bias: Array) -> None:
    """Give a layer another bias, or one where it has none."""
    weight, layer = use
    place = bias_place(wiring, layer)
    if place is not None and layer.bias is not None:
        old = graph.constant(layer.bias)
        assert old is not None
        new = bias.reshape(old.shape).astype(old.dtype)
        if len(wiring.readers[layer.bias]) == 1:
            graph.replace_constant(layer.bias, new)
        else:
            graph.set_operand(place[0].name, place[1], new)
        return
    array = graph.constant(weight.constant)
    dtype = bias.dtype if array is None else array.dtype
    try:
        graph.set_operand(layer.op, 2, bias.astype(dtype))
    except Refused:  # a product of matrices takes none
        if layer.kind is Kind.CONV:
            raise
        graph.insert("add", layer.output, bias.astype(dtype))


def _by_group(weight: Weight, layer: Layer, array: Array) -> Array:
    """A weight as ``[groups, out, in, window]``."""
    channels = weight.view.shape[1] if layer.kind is Kind.CONV else weight.shape[1]
    rows = weight.shape[0] // layer.groups
    return weight.view.matrix(array).reshape(layer.groups, rows, channels, -1)


def _wide(graph: Graph, weight: Weight) -> Array:
    array = graph.constant(weight.constant)
    assert array is not None
    return array.astype(np.float64)


def _put(graph: Graph, weight: Weight, array: Array) -> None:
    old = graph.constant(weight.constant)
    assert old is not None
    graph.replace_constant(weight.constant, array.reshape(old.shape).astype(old.dtype))


def _numbers(op: Op, name: str) -> tuple[float | str, ...]:
    found = op.attributes.get(name)
    return found if isinstance(found, tuple) else (-1,)
