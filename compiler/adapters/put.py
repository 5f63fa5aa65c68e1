"""Reading what a layer computes with, and changing it, whoever else reads it."""

from collections.abc import Mapping, Sequence

import numpy as np

from qcc.compiler.adapters.places import AdapterPlace
from qcc.ir.adapters.delta import Affine
from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Layer, Op, Weight
from qcc.passes.channels.affine import Wiring, bias_of, put_bias

PASSING = (Kind.TRANSPOSE, Kind.RESHAPE, Kind.CONSTANT)  # what a weight may reach its layer through
TURNED = "conv_transpose"


def base_of(graph: Graph, place: AdapterPlace) -> Affine:
    """What a place computes with, in float64.

    Raises:
        Refused: it is several, or no numbers of floats that can be changed.
    """
    if len(place.weights) > 1:
        raise Refused("a weight and another have this name, as a table and a head that were one")
    if not place.weights:
        found = {part: _wide(graph, name) for part, name in place.constants.items()}
        return Affine(found.get("weight"), found.get("bias"))
    weight, layer = place.weights[0], place.layers[0]
    if weight.given is not None:
        raise Refused("its weight comes compressed: put the adapter into the model before it is")
    if layer.kind is Kind.RECURRENT:
        raise Refused("it is recurrent: its gates lie in another order than in the file")
    array = _wide(graph, weight.constant).reshape(weight.view.shape)
    rows = len(array) if _is_turned(layer) else weight.shape[0]
    shape = (rows, *array.shape[1:]) if layer.kind is Kind.CONV else weight.shape
    whole = array if _is_turned(layer) else weight.view.matrix(array).reshape(shape)
    bias = bias_of(graph, layer, rows) if layer.bias is not None else None
    return Affine(whole, bias, layer.kind is Kind.EMBEDDING)


def put(graph: Graph, place: AdapterPlace, base: Affine, added: Mapping[str, Array]) -> None:
    """Add to what a place computes with.

    Raises:
        Refused: what comes out is not finite in the type that it is stored in, or it cannot be told from what others
            read.
    """
    if "weight" in added:
        assert base.weight is not None
        _put_weight(graph, place, base.weight + added["weight"])
    if "bias" not in added:
        return
    bias = added["bias"] + (0 if base.bias is None else base.bias)
    if not place.layers:
        if "bias" not in place.constants:
            raise Refused("it has no bias")
        _replace(graph, place.constants["bias"], bias)
        return
    for layer in place.layers:
        if layer.kind not in (Kind.LINEAR, Kind.CONV):
            raise Refused("nothing is added to what it makes")
        use = next((weight, one) for weight in graph.weights() for one in weight.layers if one.op == layer.op)
        put_bias(graph, Wiring.of(graph), use, bias)


def _put_weight(graph: Graph, place: AdapterPlace, whole: Array) -> None:
    if not place.weights:
        _replace(graph, place.constants["weight"], whole)
        return
    weight = place.weights[0]
    if _is_turned(place.layers[0]):
        matrix = weight.view.matrix(whole.reshape(weight.view.shape))
    else:
        matrix = whole.reshape(weight.shape)
    array = graph.as_constant(weight, matrix)
    _check_finite(array)
    ops = {layer.op for layer in place.layers}
    own, others = _readers(graph, weight.constant, ops)
    if not others:
        graph.replace_constant(weight.constant, array)
    elif all(weight.constant in op.inputs for op in own):
        _set(graph, own, weight, array)
    elif all(weight.constant in op.inputs for op in others):
        old = graph.constant(weight.constant)
        assert old is not None
        _set(graph, others, weight, old.copy())
        graph.replace_constant(weight.constant, array)
    else:
        names = ", ".join(f"`{layer.name}`" for layer in weight.layers if layer.op not in ops)
        raise Refused(f"its weight is also that of {names or 'others'}, and cannot be told apart")


def _set(graph: Graph, ops: Sequence[Op], weight: Weight, array: Array) -> None:
    for op in ops:
        graph.set_operand(op.name, op.inputs.index(weight.constant), array)


def _readers(graph: Graph, constant: str, ops: set[str]) -> tuple[list[Op], list[Op]]:
    """The ops that read a constant, however it reaches them: those among some, and the others."""
    own, others, names = list[Op](), list[Op](), {constant}
    for op in graph.ops():
        if not names & set(op.inputs):
            continue
        if op.name in ops:
            own.append(op)
        elif op.kind in PASSING or op.function in ("cast", "identity"):
            names |= set(op.outputs)
        else:
            others.append(op)
    return own, others


def _replace(graph: Graph, name: str, array: Array) -> None:
    """Change a constant that has a name of its own, for all that read it by that name."""
    old = graph.constant(name)
    assert old is not None
    with np.errstate(over="ignore"):
        new = array.reshape(old.shape).astype(old.dtype)
    _check_finite(new)
    graph.replace_constant(name, new)


def _check_finite(array: Array) -> None:
    if not np.isfinite(array.astype(np.float64)).all():
        raise Refused(f"what comes out is too large for {array.dtype.name}")


def _wide(graph: Graph, name: str) -> Array:
    array = graph.constant(name)
    if array is None:
        raise Refused(f"`{name}` is not a constant")
    return array.astype(np.float64)


def _is_turned(layer: Layer) -> bool:
    return layer.kind is Kind.CONV and layer.function == TURNED
