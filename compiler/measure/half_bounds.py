"""How large the values of a graph can get at most, whatever it is fed."""

from collections.abc import Mapping, Sequence
from math import inf, prod, sqrt

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Layer, Op, Weight

ONE = frozenset({"softmax", "sigmoid", "hard_sigmoid", "hardmax", "tanh", "erf", "sin", "cos", "softsign"})
FIRST = frozenset({"relu", "abs", "neg", "mean", "max", "min", "max_pool", "avg_pool", "gelu", "silu", "identity"})
PLACES = frozenset({Kind.RESHAPE, Kind.TRANSPOSE, Kind.SPLIT, Kind.EMBEDDING})
SOME = frozenset({"gather", "gather_elements", "gather_nd", "slice"})


def value_bounds(graph: Graph) -> Mapping[str, float]:
    """The largest size of a number of each value that is computed; infinite where nothing bounds it.

    What is fed is not bounded, what is computed of whole numbers may be.
    """
    rows = {
        layer.op: (layer.input, most)
        for weight in graph.weights()
        if (most := _row_sum(graph, weight)) < inf
        for layer in weight.layers
        if _is_plain(weight, layer)
    }
    found: dict[str, float] = {}
    for op in graph.ops():
        known = [_of(graph, name, found) for name in op.inputs]
        told = op.outputs if op.kind is Kind.SPLIT else op.outputs[:1]  # a norm's others are no normalised numbers
        found |= dict.fromkeys(op.outputs, inf) | dict.fromkeys(told, _made(graph, op, known, found, rows))
    return found


def _of(graph: Graph, name: str, found: Mapping[str, float]) -> float:
    array = graph.constant(name) if name else None
    if array is None or array.dtype.kind not in "fV":
        return found.get(name, inf)
    return float(np.abs(array.astype(np.float32)).max(initial=0))


def _row_sum(graph: Graph, weight: Weight) -> float:
    """The most that rows of a weight make of numbers of size one."""
    try:
        sums = np.abs(graph.matrix(weight)).sum(1, dtype=np.float64)
        return float(sums.max(initial=0))
    except Refused:
        return inf


def _is_plain(weight: Weight, layer: Layer) -> bool:
    """A layer multiplies by the weight's matrix, not by another one that is made of it, and scales nothing."""
    alike = {one.function for one in weight.layers} == {layer.function}
    return layer.form_free or (layer.kind is Kind.CONV and alike)


def _made(
    graph: Graph, op: Op, known: Sequence[float], found: Mapping[str, float], rows: Mapping[str, tuple[str, float]]
) -> float:
    """The bound of what an op makes of values with bounds."""
    first = known[0] if known else inf
    if op.function in ONE:
        return 1.0
    if op.kind is Kind.NORM:
        return sqrt(_width(graph, op)) * prod(known[1:2]) + sum(known[2:3])
    if op.function == "clip":
        return _clipped(graph, op, first)
    if op.function in ("add", "sub"):
        return sum(known)
    if op.function == "mul":
        return prod(known) if all(known) else 0.0
    if op.kind is Kind.CONCAT or (op.kind is Kind.BINARY and op.function in ("max", "min")):
        return max(known, default=inf)
    if op.function in FIRST or op.function in SOME or op.kind in PLACES:
        return first
    if op.name in rows and op.kind in (Kind.LINEAR, Kind.CONV):
        read, most = rows[op.name]
        return _of(graph, read, found) * most + sum(known[2:])
    return inf


def _width(graph: Graph, op: Op) -> float:
    """How many numbers a norm sees at once, infinite if not known: none gets larger than the root of that."""
    shape, axis = graph.value(op.outputs[0]).shape, op.attributes.get("axis")
    if op.function not in ("layer_norm", "rms_norm") or shape is None or not isinstance(axis, int):
        return inf
    return float(prod(size if isinstance(size, int) else inf for size in shape[axis:]))


def _clipped(graph: Graph, op: Op, first: float) -> float:
    """A number that is clipped is as it was, or one of the ends; an end beyond zero may be larger than it was."""
    if any(name and graph.constant(name) is None for name in op.inputs[1:]):
        return inf
    ends = op.attributes.get("min"), op.attributes.get("max")
    low, high = (float(end) if isinstance(end, int | float) else None for end in ends)
    within = inf if low is None or high is None else max(abs(low), abs(high))
    return min(within, max(first, low or 0.0, -(high or 0.0)))
