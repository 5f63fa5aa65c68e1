"""Folding batch norms into the layers beside them: the first half of `fold_norm`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcc.ir.axes.axes import Axes
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Op
from qcc.passes.channels.affine import (
    LayerUse,
    Wiring,
    bias_of,
    put_bias,
    response,
    scale_columns,
    scale_rows,
    takes_affine,
)
from qcc.passes.contract.contract import Site

MOVES = ("reshape", "squeeze", "unsqueeze", "transpose", "identity")


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm with the layers that take it up: the one before it, or all behind it."""

    site: Site
    op: Op
    before: LayerUse | None = None
    behind: tuple[LayerUse, ...] = ()


def batch_norms(graph: Graph, targets: Sequence[str]) -> list[BatchNorm]:
    """The batch norms beside a target; one without layers to take it up is refused."""
    wiring = Wiring.of(graph)
    norms = [op for op in wiring.ops.values() if op.kind is Kind.NORM and op.function == "batch_norm"]
    if not norms:
        return []
    axes, wanted = Axes.of(graph), set(targets)
    found = (_find(graph, wiring, axes, op) for op in norms)
    return [one for one in found if wanted.intersection(one.site.layers)]


def fold(graph: Graph, norm: BatchNorm) -> str:
    """Take a batch norm up and leave it out; tells where it went."""
    wiring = Wiring.of(graph)
    scale, shift = _affine(graph, norm.op)
    if norm.before is not None:
        scale_rows(graph, norm.before, scale)
        bias = bias_of(graph, norm.before[1], len(scale))
        put_bias(graph, wiring, norm.before, bias * scale + shift)
    for use in norm.behind:
        added = response(graph, use, shift)
        scale_columns(graph, use, scale)
        if np.any(added):
            put_bias(graph, wiring, use, bias_of(graph, use[1], len(added)) + added)
    graph.bypass(norm.op.name)
    return f"folded into {'the layer before' if norm.before else 'what reads it'}: {_listed(norm.site.layers)}"


def _find(graph: Graph, wiring: Wiring, axes: Axes, op: Op) -> BatchNorm:
    subject = f"batch norm {op.name}"
    if any(op.outputs[1:]) or "epsilon" not in op.attributes or any(_unread(graph, name) for name in op.inputs[1:]):
        reason = "its statistics are not constants"
        return BatchNorm(Site(subject, _around(wiring, axes, op), reason), op)
    before, why_before = _layer_before(wiring, axes, op)
    if before is not None:
        return BatchNorm(Site(subject, (before[0].name,)), op, before)
    behind, why_behind = _layers_behind(graph, wiring, op)
    if behind:
        return BatchNorm(Site(subject, tuple(dict.fromkeys(use[0].name for use in behind))), op, behind=behind)
    reason = f"before it: {why_before}; behind it: {why_behind}"
    return BatchNorm(Site(subject, _around(wiring, axes, op), reason), op)


def _unread(graph: Graph, name: str) -> bool:
    return bool(name) and graph.constant(name) is None


def _layer_before(wiring: Wiring, axes: Axes, op: Op) -> tuple[LayerUse | None, str]:
    """The layer whose outputs a norm normalises, through ops that only give them another shape."""
    value, turned, moved = op.inputs[0], False, False
    while True:
        maker = wiring.makers.get(value)
        if wiring.reads_alone(value) is None:
            return None, f"`{value}` is read elsewhere, too"
        if maker is None:
            return None, f"`{value}` is an input"
        if maker.function not in MOVES:
            break
        value, turned, moved = maker.inputs[0], turned or maker.kind is Kind.TRANSPOSE, True
    use = next((use for use in wiring.layers.values() if use[1].output == value), None)
    if use is None:
        return None, f"`{maker.function}` is no layer"
    reason = takes_affine(wiring, use)
    if reason:
        return None, reason
    weight, layer = use
    if layer.kind is Kind.CONV and not moved:
        return use, ""
    rows, norm = axes.on(weight.constant, weight.view.out_axes[0]), axes.on(op.inputs[0], 1)
    same = [group.name for group in rows] == [group.name for group in norm]
    whole = axes.graph.value(op.inputs[3]).shape == weight.shape[:1]
    if layer.groups > 1 or not rows or not same or not whole or (turned and len(rows) > 1):
        return None, f"it does not normalise the outputs of `{layer.name}` one by one"
    return use, ""


def _layers_behind(graph: Graph, wiring: Wiring, op: Op) -> tuple[tuple[LayerUse, ...], str]:
    """The layers that read a norm, if nothing else does."""
    value = op.outputs[0]
    if value in wiring.outputs:
        return (), "it is an output of the model"
    found = []
    for reader, _ in wiring.readers.get(value, ()):
        use = wiring.layers.get(reader.name)
        if use is None:
            return (), f"`{reader.function}` reads it"
        reason = takes_affine(wiring, use, value)
        if reason:
            return (), reason
        if use[1].kind is Kind.LINEAR and len(graph.value(value).shape or ()) != 2:
            return (), f"`{use[1].name}` does not read its channels"
        found.append(use)
    return tuple(found), "" if found else "nothing reads it"


def _affine(graph: Graph, op: Op) -> tuple[Array, Array]:
    """A batch norm as ``x * scale + shift``."""
    arrays = [graph.constant(name) if name else None for name in (*op.inputs, "", "")[1:5]]
    gain, bias, mean, variance = (None if array is None else array.astype(np.float64) for array in arrays)
    assert mean is not None and variance is not None
    scale = (1.0 if gain is None else gain) / np.sqrt(variance + float(op.attributes["epsilon"]))  # type: ignore[arg-type]  # a number, see `functions`
    return scale, (0.0 if bias is None else bias) - mean * scale


def _around(wiring: Wiring, axes: Axes, op: Op) -> tuple[str, ...]:
    """The weights that make what a norm reads, that read what it makes, or share its channels."""
    behind = {reader.name for reader, _ in wiring.readers.get(op.outputs[0], ())}
    near = [use for use in wiring.layers.values() if use[1].output == op.inputs[0] or use[1].op in behind]
    groups = axes.on(op.outputs[0], 1)
    members = (member.weight for group in groups for member in group.members if member.weight)
    return tuple(dict.fromkeys((*(weight.name for weight, _ in near), *members)))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
