"""How large the values of a graph can get at most, whatever it is fed."""

from collections.abc import Mapping, Sequence
from math import inf, prod, sqrt

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op

ONE = frozenset({"softmax", "sigmoid", "hard_sigmoid", "hardmax", "tanh", "erf", "sin", "cos", "softsign"})
FIRST = frozenset({"relu", "abs", "neg", "mean", "max", "min", "max_pool", "avg_pool", "gelu", "silu", "identity"})
PLACES = frozenset({Kind.RESHAPE, Kind.TRANSPOSE, Kind.SPLIT, Kind.EMBEDDING})
SOME = frozenset({"gather", "gather_elements", "gather_nd", "slice"})


def value_bounds(graph: Graph) -> Mapping[str, float]:
    """The largest size of a number of each value that is computed; infinite where nothing bounds it.

    What is fed is not bounded, what is computed of whole numbers may be.
    """
    rows = {layer.op: _row_sum(graph, weight.name) for weight in graph.weights() for layer in weight.layers}
    found: dict[str, float] = {}
    for op in graph.ops():
        known = [_of(graph, name, found) for name in op.inputs]
        found |= dict.fromkeys(op.outputs, _made(graph, op, known, rows))
    return found


def _of(graph: Graph, name: str, found: Mapping[str, float]) -> float:
    array = graph.constant(name) if name else None
    if array is None or array.dtype.kind not in "fV":
        return found.get(name, inf)
    return float(np.abs(array.astype(np.float32)).max(initial=0))


def _row_sum(graph: Graph, weight: str) -> float:
    """The most that rows of a weight make of numbers of size one."""
    try:
        matrix = graph.matrix(next(one for one in graph.weights() if one.name == weight))
    except Refused:
        return inf
    return float(np.abs(matrix).sum(1, dtype=np.float64).max(initial=0))


def _made(graph: Graph, op: Op, known: Sequence[float], rows: Mapping[str, float]) -> float:
    """The bound of what an op makes of values with bounds."""
    first = known[0] if known else inf
    if op.function in ONE:
        return 1.0
    if op.kind is Kind.NORM:
        size = graph.value(op.outputs[0]).shape
        width = size[-1] if size and op.function in ("layer_norm", "rms_norm") else None
        return sqrt(width) * prod(known[1:2]) + sum(known[2:3]) if isinstance(width, int) else inf  # of one row
    if op.function == "clip":
        return min(first, max(known[1:], default=inf) if len(known) > 2 else inf)
    if op.function in ("add", "sub"):
        return sum(known)
    if op.function == "mul":
        return prod(known) if all(known) else 0.0
    if op.kind is Kind.CONCAT or (op.kind is Kind.BINARY and op.function in ("max", "min")):
        return max(known, default=inf)
    if op.function in FIRST or op.function in SOME or op.kind in PLACES:
        return first
    return first * rows[op.name] + sum(known[2:]) if op.name in rows and op.kind in (Kind.LINEAR, Kind.CONV) else inf
