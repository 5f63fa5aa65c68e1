"""Fitting the layers behind a gap in a residual stream, so that the stream becomes what it was.

The last layer of a branch adds to the stream: what the stream lacks behind it is fitted, by least squares, to what the
layer reads by then. That knows more than a map of the stream alone: hidden channels are no linear function of it, and
attention has seen other tokens.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Layer, Weight
from qcc.ir.regions.joined import Joins
from qcc.ir.regions.residual import ResidualBranch, residual_branches
from qcc.passes.contract.contract import Watch
from qcc.passes.structure.stream_fit import RIDGES, StreamSums, row_weights


@dataclass(frozen=True)
class Refit:
    """A layer behind a gap.

    Args:
        branch: its name.
        weight: the layer's.
        constants: what becomes of its matrix, and of its bias where it has one, by name.
        error: what is left of what the stream lacks on data held out, as a share of it.
    """

    branch: str
    weight: str
    constants: dict[str, Array]
    error: float


def refits(whole: Graph, work: Graph, end: str, gone: Set[str], most: int, watch: Watch) -> list[Refit]:
    """What the last layers of branches become, one after the other.

    Args:
        whole: the graph with all branches.
        work: the same with a gap; it gets the constants that are returned.
        end: the sum behind the gap, in the whole graph.
        gone: branches that are not there.
        most: branches that are looked at.
        watch: runs both.

    Source: sequential least squares as in ThiNet, Luo et al. 2017 (arXiv:1707.06342), section 3.2; what the stream
        lacks as in `qronos`.
    """
    found = []
    for branch in _behind(whole, end, gone)[:most]:
        made = _ending(whole, branch)
        one = _fitted(whole, work, branch, *made, watch) if made is not None else None
        if one is not None:
            found.append(one)
            put(work, [one])
    return found


def put(graph: Graph, found: Sequence[Refit]) -> None:
    """Give layers the constants that were found for them."""
    for one in found:
        for name, array in one.constants.items():
            graph.replace_constant(name, array)


def _behind(whole: Graph, end: str, gone: Set[str]) -> list[ResidualBranch]:
    """The outermost branches that end behind a value."""
    every = residual_branches(whole)
    outermost = [one for one in every if not any(one.ops < other.ops for other in every)]
    sums = [one.sum for one in outermost]
    first = sums.index(end) + 1 if end in sums else len(sums)
    return [one for one in outermost[first:] if one.name not in gone]


def _ending(graph: Graph, branch: ResidualBranch) -> tuple[Weight, Layer] | None:
    """The layer that adds to the stream, if nothing else has its weight."""
    joins, outputs = Joins(graph), {op.name: op.outputs[0] for op in graph.ops()}
    for weight in graph.weights():
        (layer, *others) = weight.layers
        if others or layer.op not in branch.ops or layer.kind is not Kind.LINEAR or not layer.input:
            continue
        if joins.total(outputs[layer.op]) == branch.sum and joins.beside(outputs[layer.op]):
            return weight, layer
    return None


def _fitted(
    whole: Graph, work: Graph, branch: ResidualBranch, weight: Weight, layer: Layer, watch: Watch
) -> Refit | None:
    """The layer's constants; None where data held out is no nearer by any."""
    now = next((one.sum for one in residual_branches(work) if one.op == branch.op), None)
    if now is None:
        return None
    seen, judged = StreamSums(), StreamSums()
    for sums, held in ((seen, False), (judged, True)):
        pairs = zip(watch(work, (layer.input, now), held), watch(whole, (branch.sum,), held), strict=True)
        for values, meant in pairs:
            x, got, wanted = (_rows(one) for one in (values[layer.input], values[now], meant[branch.sum]))
            sums.take(x, wanted - got, row_weights(wanted))
    if not judged.size or not seen.size:
        return None
    bias = work.constant(layer.bias) if layer.bias is not None else None
    maps = [_map(seen, ridge, bias is not None) for ridge in RIDGES]
    best = min(maps, key=judged.error)
    error = judged.error(best)
    if not error < 1:
        return None
    matrix = work.matrix(weight).astype(np.float64) + best[:-1].T
    made = {weight.constant: weight.view.array(matrix.astype(np.dtype(weight.dtype)))}
    if bias is not None and layer.bias is not None:
        made[layer.bias] = (bias + best[-1].reshape(bias.shape)).astype(bias.dtype)
    return Refit(branch.name, weight.name, made, error)


def _map(sums: StreamSums, ridge: float, biased: bool) -> Array:
    """What a layer's weights get more ``[in + 1, out]``, the last row for its bias."""
    kept = slice(None) if biased else slice(-1)
    gram, found = sums.gram[kept, kept], np.zeros_like(sums.pull)
    diagonal = np.diag(gram)
    found[kept] = np.linalg.solve(gram + np.diag(ridge * diagonal + 1e-6 * diagonal.mean()), sums.pull[kept])
    return found


def _rows(value: Array) -> Array:
    return value.reshape(-1, value.shape[-1]).astype(np.float64)
