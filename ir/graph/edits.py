"""What edits of a graph keep to in every framework: what fits where, and what new constants are called."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from qcc.ir.encoding.value import DYNAMIC_INT8, ValueEncoding
from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph, needed
from qcc.ir.graph.ops import Array, Kind, Value, Weight

MATRIX = 2  # axes
SizeType = TypeVar("SizeType")


def operand_name(
    graph: Graph, weights: Iterable[Weight], op: str, inputs: Sequence[str], position: int, array: Array
) -> str:
    """What a constant that an op gets to itself is called, where that is free: as its layer or what it replaces.

    Args:
        graph: as it is before.
        weights: its weights, those that are encoded among them.
        op: the op's name.
        inputs: what the op reads; an operand left out is empty or missing.
        position: of the operand.
        array: the constant's.

    Raises:
        Refused: the array is not of the operand's type.
    """
    old = inputs[position] if 0 <= position < len(inputs) else ""
    if old or (inputs and inputs[0] and array.dtype.kind in "fV"):  # a bias is of the type of what it is added to
        _check_type(graph.value(old or inputs[0]), array)
    layer = next((layer for weight in weights for layer in weight.layers if layer.op == op), None)
    if layer is not None and position < 2 and old != layer.input:
        return f"{layer.name}.weight"
    if layer is not None and position == 2:
        return f"{layer.name}.bias"
    return old if old and graph.constant(old) is not None else f"{op}.operand{position}"


def layer_names(weights: Iterable[Weight]) -> dict[str, str]:
    """The layers' names by their ops, but for ops that are several layers."""
    layers = [layer for weight in weights for layer in weight.layers]
    count = Counter(layer.op for layer in layers)
    return {layer.op: layer.name for layer in layers if count[layer.op] == 1}


NUMBERED = "#"  # in names of layers that would be called the same


def keep_names(weights: Iterable[Weight], kept: Mapping[str, str]) -> tuple[Weight, ...]:
    """Weights whose layers are called as they were before an edit, which changed the paths and ties that name them.

    Args:
        weights: as they would be called now.
        kept: the names of layers by their ops; other layers get none of them.
    """
    taken = set(kept.values())
    found = []
    for weight in weights:
        names = (kept.get(layer.op) or fresh(layer.name, taken) for layer in weight.layers)
        layers = tuple(replace(layer, name=name) for layer, name in zip(weight.layers, names, strict=True))
        found.append(replace(weight, name=layers[0].name, layers=layers))
    return tuple(found)


def fresh(name: str, taken: Container[str]) -> str:
    """The name itself where it is free, else `name#2` and so on."""
    count, free = 1, name
    while free in taken:
        count += 1
        free = f"{name}{NUMBERED}{count}"
    return free


def check_insert(graph: Graph, function: str, value: str, array: Array) -> None:
    """Say no to an op that could not follow a value.

    Raises:
        Refused: array and value do not go together.
    """
    found = graph.value(value)
    if function != "gather":
        _check_type(found, array)
        if function == "linear" and array.ndim != MATRIX:
            raise Refused(f"a layer multiplies by a matrix, not by an array {array.shape}")
    elif array.ndim != 1 or array.dtype != np.int64:
        raise Refused(f"indices are one row of int64, not {array.dtype.name} {array.shape}")
    if found.shape is not None:
        result_shape(function, found.shape, array)


def check_value(
    graph: Graph, value: str, encoding: ValueEncoding, readers: Sequence[tuple[str, int]] | None = ()
) -> None:
    """Say no to rounding a value in a way that no graph has, or one that is no tensor of float32.

    Raises:
        Refused: it cannot be rounded so.
    """
    found = graph.value(value)
    if encoding.refuses:
        raise Refused(encoding.refuses)
    if found.container or found.dtype != "float32" or found.shape == ():
        raise Refused(f"`{value}` is no tensor of float32: only such are rounded")
    width = found.shape[-1] if found.shape else None
    if encoding.group and not (isinstance(width, int) and width % encoding.group == 0):
        raise Refused(f"`{value}` has {width or 'no known number of'} channels, no multiple of {encoding.group}")
    matrix = found.shape is None or len(found.shape) <= MATRIX
    if (encoding.by_position and matrix) or (encoding.float_tokens and (matrix or readers is None)):
        raise Refused(f"`{value}` has no axis of tokens for readers that are named")


def check_product(graph: Graph, value: str) -> None:
    """Say no to integers in the place of what is no product of two computed matrices of float32, as they stand.

    Raises:
        Refused: it is none.
    """
    op = next((one for one in graph.ops() if value in one.outputs), None)
    if op is None or op.kind not in (Kind.MATMUL, Kind.LINEAR) or len(op.inputs) != MATRIX:
        raise Refused(f"`{value}` is no product of two matrices")
    if op.attributes.get("terms") or op.attributes.get("transposed"):
        raise Refused("the runtime multiplies integers in products of matrices alone, as they stand")
    for name in op.inputs:
        check_value(graph, name, DYNAMIC_INT8)
        if graph.constant(name) is not None:
            raise Refused(f"`{name}` is a constant")
        if (shape := graph.value(name).shape) is None or len(shape) < MATRIX:
            raise Refused(f"`{name}` is no matrix")


def check_bypass(source: Value, result: Value) -> None:
    """Say no to reading one value for another.

    Raises:
        Refused: they are of different types.
    """
    if source.dtype and result.dtype and source.dtype != result.dtype:
        raise Refused(f"`{result.name}` is {result.dtype}, but `{source.name}` is {source.dtype}")


def check_constant(graph: Graph, op: str, inputs: Sequence[str], position: int, name: str) -> None:
    """Say no to reading a constant at a place that is not for it.

    Raises:
        Refused: it is no constant, or of another type than what is read.
    """
    array = graph.constant(name)
    if array is None:
        raise Refused(f"`{name}` is not a constant")
    old = inputs[position] if 0 <= position < len(inputs) else ""
    if not old:
        raise Refused(f"`{op}` reads nothing as operand {position}")
    _check_type(graph.value(old), array)


def check_instead(graph: Graph, value: str, instead: str) -> None:
    """Say no to reading one value for another, all over the graph.

    Raises:
        Refused: they are of different types or shapes, or the order of the graph forbids it.
    """
    one, other = graph.value(value), graph.value(instead)
    check_bypass(other, one)
    pairs = zip(one.shape or (), other.shape or (), strict=False)
    ranks = {len(shape) for shape in (one.shape, other.shape) if shape is not None}
    unlike = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
    if one.container != other.container or len(ranks) > 1 or unlike:
        raise Refused(f"`{instead}` is {_spelled(other)}, `{value}` is {_spelled(one)}")
    _check_order(graph, value, instead)


def check_region(graph: Graph, value: str, source: str, matrix: Array, bias: Array | None) -> None:
    """Say no to making a value by a product of another.

    Raises:
        Refused: they do not go together, or the order of the graph forbids it.
    """
    result, given = graph.value(value), graph.value(source)
    for array in (matrix, *([] if bias is None else [bias])):
        _check_type(result, array)
    check_bypass(given, result)
    if matrix.ndim != 2 or (bias is not None and bias.shape != matrix.shape[1:]):
        raise Refused(f"a matrix {matrix.shape} takes a bias ({matrix.shape[-1] if matrix.ndim else ''},)")
    made = None if given.shape is None or result.shape is None else (*given.shape[:-1], matrix.shape[1])
    known = made is not None and result.shape is not None and given.shape is not None
    if known and (not given.shape or given.shape[-1] != matrix.shape[0] or made != result.shape):
        raise Refused(f"a matrix {matrix.shape} does not make `{value}` {_spelled(result)} of {_spelled(given)}")
    _check_order(graph, value, source)


def _check_order(graph: Graph, value: str, before: str) -> None:
    """What readers of a value read instead must be made before the first of them; so it cannot depend on the value."""
    ops = graph.ops()
    made = {name: at for at, op in enumerate(ops) for name in op.outputs}
    if value not in made:
        raise Refused(f"`{value}` is not computed")
    first = next((at for at, op in enumerate(ops) if value in op.inputs), len(ops))
    if before == value or made.get(before, -1) >= first:
        raise Refused(f"`{before}` is made after what reads `{value}`")


def _spelled(value: Value) -> str:
    return "of unknown rank" if value.shape is None else str(value.shape)


def result_shape(function: str, shape: Sequence[SizeType], array: Array) -> tuple[SizeType | int, ...]:
    """The shape of ``value * array``, ``value + array``, ``value[..., array]`` or ``value @ array``.

    Args:
        function: the op.
        shape: the value's; a size that is not known is anything but an int.
        array: the other operand.

    Raises:
        Refused: they do not broadcast, or there is no such index.
    """
    if function == "gather":
        return _picked(shape, array)
    if function == "linear":
        return _multiplied(shape, array)
    rank = max(len(shape), array.ndim)
    sizes: list[SizeType | int] = [*([1] * (rank - len(shape))), *shape]
    others = [*([1] * (rank - array.ndim)), *array.shape]
    return tuple(_broadcast(size, other, shape, array) for size, other in zip(sizes, others, strict=True))


def _broadcast(size: SizeType | int, other: int, shape: Sequence[SizeType], array: Array) -> SizeType | int:
    if other == 1:
        return size
    if isinstance(size, int) and size not in (1, other):
        raise Refused(f"an array {array.shape} does not broadcast over a value {tuple(shape)}")
    return other


def _picked(shape: Sequence[SizeType], indices: Array) -> tuple[SizeType | int, ...]:
    if not shape:
        raise Refused("a value without axes has nothing to pick from")
    last = shape[-1]
    if indices.size and (indices.min() < 0 or (isinstance(last, int) and indices.max() >= last)):
        raise Refused(f"indices {indices.min()} to {indices.max()} do not lie within an axis of {last}")
    return (*shape[:-1], len(indices))


def _multiplied(shape: Sequence[SizeType], matrix: Array) -> tuple[SizeType | int, ...]:
    if not shape or (isinstance(last := shape[-1], int) and last != len(matrix)):
        raise Refused(f"a matrix {matrix.shape} does not multiply a value {tuple(shape)}")
    return (*shape[:-1], matrix.shape[1])


def _check_type(value: Value, array: Array) -> None:
    if value.dtype and value.dtype != array.dtype.name:
        raise Refused(f"`{value.name}` is {value.dtype}, the array {array.dtype.name}")


def check_borders(graph: Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Say no to values between which there is no graph.

    Raises:
        Refused: one is a constant or is named twice, or what an output depends on is not fed.
    """
    named = [*inputs, *outputs]
    if twice := [name for name, count in Counter(named).items() if count > 1]:
        raise Refused(f"`{twice[0]}` is named twice among what is fed and returned")
    if constants := [name for name in named if graph.constant(name) is not None]:
        raise Refused(f"`{constants[0]}` is a constant, which is neither fed nor returned")
    reached = needed(graph, outputs, inputs)
    if missing := [one.name for one in graph.inputs if one.name in reached and one.name not in inputs]:
        raise Refused(f"`{missing[0]}` is needed and not fed")


CAST = ("float32", "float16", "float64", "bfloat16", "int8", "uint8", "int32", "int64")
"""The types that inputs and outputs may be cast to and from."""


def check_type(graph: Graph, value: str, dtype: str) -> None:
    """Say no to another type of what is no input and no output, or cannot be cast.

    Raises:
        Refused: it is neither, or both, or one of the types is not known.
    """
    ends = [one for one in (*graph.inputs, *graph.outputs) if one.name == value]
    if len(ends) != 1:
        raise Refused(f"`{value}` is {'both' if ends else 'neither'} an input {'and' if ends else 'nor'} an output")
    if wrong := [one for one in (dtype, ends[0].dtype) if one not in CAST]:
        raise Refused(f"nothing is cast to or from {wrong[0]}")
