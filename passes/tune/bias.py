"""Making up in biases for what rounding does to means."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Layer, Op, Weight
from qcc.ir.regions.joined import Joins
from qcc.passes.contract.contract import Tuning
from qcc.passes.contract.tunable import Tunable, TunedOperand

BIAS = 2  # of a convolution or Gemm, its place among what it reads


@dataclass(frozen=True)
class TuneBias(Tuning):
    """Change biases so that layers make in the mean what the float model's make, channel by channel.

    Rewrite:
        y = W x + b  -->  y = Q x + b + mean(W x' + r' - Q x - r)

    ``x'`` is what the float model reads, ``x`` what there is by then: weights are rounded as they will be, and values
    where activations are. Where the result is added to a residual stream before anything else is done with it, ``r'``
    and ``r`` are that stream, whose mean error is made up for as well. Layers are tuned in the order in which they run,
    each after those before it. A channel keeps its bias where a quarter of the samples, held out, is not nearer to the
    float model then; all do where the model's outputs on these samples are not: so it is in deep networks whose signals
    rounding shrinks layer by layer, which only weights that make up for it (`qronos`, `adaquant`) cure.

    A layer without a bias gets one if it is a convolution, and is left alone otherwise.

    Source: Data-free quantization through weight equalization and bias correction, Nagel et al. 2019
    (arXiv:1906.04721), section 4.2, there in closed form from batch norms; Hubara et al. 2020 (arXiv:2006.10518),
    section 3.3.
    """

    property: ClassVar[str] = "bias"
    keyword: ClassVar[str] = "tune"

    def tunables(self, graph: Graph, targets: Sequence[str]) -> Sequence[Tunable]:
        """The layers of the targets."""
        wanted = set(targets)
        ops, joins = {op.name: op for op in graph.ops()}, Joins(graph)
        weights = [one for one in graph.weights() if one.name in wanted]
        return list(_tunables(graph, weights, ops, joins))


def _tunables(graph: Graph, weights: Sequence[Weight], ops: Mapping[str, Op], joins: Joins) -> Iterator[Tunable]:
    for weight in weights:
        refused = _refused(graph, weight, ops)
        if refused:
            yield Tunable(weight.name, (weight.name,), refused=refused)
            continue
        layer = weight.layers[0]
        value = joins.total(layer.output)
        axis = 1 if layer.kind is Kind.CONV else -1
        yield Tunable(weight.name, (weight.name,), value, axis, shift=_bias(graph, layer, ops, weight.shape[0]))


def _refused(graph: Graph, weight: Weight, ops: Mapping[str, Op]) -> str:
    """Why a layer's bias is not tuned; empty if it is."""
    if len(weight.layers) != 1 or weight.kinds - {Kind.LINEAR, Kind.CONV}:
        return "several layers read it, or one of another kind"
    layer = weight.layers[0]
    if layer.op not in ops or not layer.input or layer.output not in ops[layer.bias_op or layer.op].outputs:
        return "it is read in a branch or a loop"
    if layer.bias is None and (layer.kind is not Kind.CONV or len(ops[layer.op].inputs) > BIAS):
        return "it has no constant bias"
    value = graph.value(layer.output)
    return "" if value.dtype == "float32" and value.shape is not None else "it makes no float32 of known rank"


def _bias(graph: Graph, layer: Layer, ops: Mapping[str, Op], size: int) -> TunedOperand:
    """The bias that is added; zeros where there is none."""
    op = ops[layer.bias_op or layer.op]
    if layer.bias is None:
        return TunedOperand(op.name, BIAS, np.zeros(size, np.float32))
    array = graph.constant(layer.bias)
    assert array is not None
    return TunedOperand(op.name, op.inputs.index(layer.bias), array)
