"""Bringing what layers read to one size, whatever an input of the model says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Readers
from qcc.ir.graph.ops import Array, Kind, Layer, Op, Value
from qcc.ir.vocabulary.tabled import TabledFactor
from qcc.passes.contract.contract import Between, Context, Edit, Rewrite, Site

LEAST = 0.95  # of the largest size: a level that is nearer to it than this is worth no product
BIAS, MATRIX = 2, 2  # where an op reads one; axes


@dataclass(frozen=True)
class Intervals(Rewrite):
    """Divide what linear layers read by how large it is at a step, and multiply what they make by that.

    Rewrite:
        x @ W  -->  (x / level[step] @ W) * level[step]

    What a diffusion model computes is of another size at each step of the loop that samples it, and one static step of
    integers has to hold them all. An input of the model tells the step. Its values in the calibration data are cut into
    intervals of about as many values each; an interval's level is the largest magnitude that was seen in it, as a share
    of the largest of all. Divided so, all intervals fill one range, and ``activations = static`` has in effect a scale
    for each of them. Levels lie in tables, in which the input of each sample is looked up.

    It takes calibration data, such as a loop's own, in which the input differs. Layers that read one value share one
    division. Refused where a layer's first axis is not that of samples, and where it is no plain product.

    Args:
        input: that tells the step, ``[samples]`` or one number for all.
        count: of intervals.

    Source: EfficientDM, He et al. 2023 (arXiv:2310.03270), section 3.3: temporal activation scales, which are learned
    there.
    """

    property: ClassVar[str] = "levels"
    after: ClassVar[tuple[str, ...]] = ("clean", "fold_norm", "rotate", "permute", "equalize", "query_key", "fold")
    watches: ClassVar[bool] = True

    input: Annotated[str, "that tells the step"]
    count: Annotated[int, Between(2, 1000), "intervals"] = 10

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The values that layers of these weights read."""
        return [one.site for one in self._places(graph, targets)]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Divide and multiply, place by place.

        Raises:
            ModelError: the model has no such input.
        """
        places = self._places(graph, targets)
        edits = [one.site.refusal for one in places if one.refused]
        places = [one for one in places if not one.refused and context.takes(one.value)]
        seen = self._seen(graph, [one.value for one in places], context)
        for one in places:
            context.progress(one.value)
            if not seen.bounds.size:
                edits.append(Edit(one.value, seen.fault, refused=True, layers=one.layers))
                continue
            levels = seen.levels[one.value]
            if levels.min() > LEAST:
                why = f"it is as large at every `{self.input}`"
                edits.append(Edit(one.value, why, refused=True, layers=one.layers))
                continue
            one.write(graph, self.input, seen.bounds, levels)
            told = f"levels of {levels.min():.2g} to 1 in {levels.size} intervals of `{self.input}`"
            edits.append(Edit(one.value, told, layers=one.layers))
        return edits

    def _places(self, graph: Graph, targets: Sequence[str]) -> list["_Place"]:
        inputs = {one.name: one for one in graph.inputs}
        if self.input not in inputs:
            told = ", ".join(f"`{name}`" for name in inputs)
            message = f"the model has no input `{self.input}`, which is to tell steps"
            raise ModelError("Q741", message, help=f"its inputs are {told}")
        ops, found = {op.name: op for op in graph.ops()}, dict[str, list[tuple[Layer, Op | None]]]()
        wanted = {*targets}
        weights = [one for one in graph.weights() if one.name in wanted]
        for layer in (layer for weight in weights for layer in weight.layers):
            found.setdefault(layer.input or layer.name, []).append((layer, ops.get(layer.op)))
        by_layer = {layer.name: weight.name for weight in weights for layer in weight.layers}
        places = []
        for value, read in found.items():
            names = tuple(dict.fromkeys(by_layer[layer.name] for layer, _ in read))
            reasons = (_fault(graph, layer, op, inputs[self.input]) for layer, op in read)
            refused = next(filter(None, reasons), "")
            places.append(_Place(value, names, tuple(op for _, op in read if op is not None), refused))
        return places

    def _seen(self, graph: Graph, values: Sequence[str], context: Context) -> "_Seen":
        """How large values are in the intervals of the input that calibration data shows."""
        if context.watch is None:
            return _Seen("no data is given, in which steps could be told apart")
        if not values:
            return _Seen("")
        steps, sizes = list[float](), list[Array]()
        for run in context.watch(graph, [self.input, *values], False):
            at, made = run[self.input].reshape(-1).astype(np.float64), [run[name] for name in values]
            for sample, step in enumerate(at):  # one number for all tells of all samples
                parts = made if len(at) == 1 else [one[sample] for one in made]
                steps.append(float(step))
                sizes.append(np.array([np.abs(one).max(initial=0) for one in parts]))
        known = np.unique(steps)
        if len(known) < 2:
            return _Seen(f"`{self.input}` is the same in all calibration data")
        parts = np.array_split(known, min(self.count, len(known)))
        bounds = np.array([(one[-1] + other[0]) / 2 for one, other in pairwise(parts)], np.float32)
        place = np.sum(np.asarray(steps, np.float32)[:, None] >= bounds, 1)
        tops = np.array([np.max(np.array(sizes)[place == at], 0, initial=0) for at in range(len(parts))])
        tops = np.where(tops > 0, tops, tops.max(0))
        levels = np.divide(tops, tops.max(0), out=np.ones_like(tops), where=tops.max(0) > 0)
        return _Seen("", bounds, {name: levels[:, at].astype(np.float32) for at, name in enumerate(values)})


@dataclass(frozen=True, eq=False)
class _Seen:
    """The bounds of intervals ``[intervals - 1]``, and levels of values ``[intervals]``; or why there are none."""

    fault: str
    bounds: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    levels: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class _Place:
    """A value, the weights whose layers read it, and the ops of these layers."""

    value: str
    layers: tuple[str, ...]
    ops: tuple[Op, ...]
    refused: str

    @property
    def site(self) -> Site:
        return Site(self.value, self.layers, self.refused)

    def write(self, graph: Graph, by: str, bounds: Array, levels: Array) -> None:
        """Put the products in: one in front of all layers, one behind each before its bias is added."""
        kind = graph.value(self.value)
        one, rank = np.ones((), kind.dtype), len(kind.shape or ())

        def times(value: str, numbers: Array, readers: Readers) -> str:
            """A product with a number first, so that names are found; then with those that are looked up."""
            made = graph.insert("mul", value, one, readers)
            source = next(op.inputs[0] for op in graph.ops() if op.outputs[0] == made)
            graph.write_tabled(TabledFactor(source, made, by, bounds, numbers.astype(kind.dtype), rank))
            return made

        times(self.value, 1 / levels, [(op.name, 0) for op in self.ops])
        for op in self.ops:
            bias = graph.constant(op.inputs[BIAS]) if op.inputs[BIAS:] and op.inputs[BIAS] else None
            if bias is not None:
                graph.set_operand(op.name, BIAS, np.zeros_like(bias))
            made = times(op.outputs[0], levels, None)
            if bias is not None:
                graph.insert("add", made, bias)


def _fault(graph: Graph, layer: Layer, op: Op | None, step: Value) -> str:
    """Why what a layer reads cannot be divided; empty if it can."""
    if op is None or op.kind is not Kind.LINEAR or op.inputs[0] != layer.input or not layer.form_free:
        return "it is no plain product of what it reads with a matrix"
    if op.inputs[BIAS:] and op.inputs[BIAS] and graph.constant(op.inputs[BIAS]) is None:
        return "its bias is computed as the model runs"
    shape = graph.value(layer.input).shape or ()
    if step.shape is None or {*step.shape[1:]} - {1}:
        return f"`{step.name}` is no single number for a sample"
    samples = (*step.shape, 1)[0]
    if len(shape) < MATRIX or samples not in (1, shape[0]):
        return f"its first axis is not known to be that of `{step.name}`"
    return ""
