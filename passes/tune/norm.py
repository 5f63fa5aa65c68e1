"""Making up in norms for what rounding does to the channels that they make."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op
from qcc.passes.contract.contract import Tuning
from qcc.passes.contract.tunable import Tunable, TunedOperand

GAIN, SHIFT = 1, 2  # their places among what a norm reads


@dataclass(frozen=True)
class TuneNorm(Tuning):
    """Fit the gains and shifts of norms so that they make what the float model's make, channel by channel.

    Rewrite:
        y = n(x) g + b  -->  y = n(x) a g + (a b + c)    a = cov(y, y') / var(y)    c = mean(y') - a mean(y)

    ``y'`` is what the norm makes in the float model, ``y`` what it makes by then: weights are rounded as they will be,
    and values where activations are. A norm without a shift gets the gain ``<y, y'> / <y, y>`` alone. Norms are
    tuned in the order in which they run, each after those before it. Samples held out judge, as of `bias`.

    Norms that a target's layers read, or whose result it is added to, are tuned: layer norms, RMS norms and batch norms
    of one op each. A batch norm that was folded into a layer is none any more; there `rounding = adaquant` fits the
    steps of rows, which is the same, and `bias = tune` their means.

    Source: Hubara et al. 2020 (arXiv:2006.10518), section 3.3, for batch norms; Norm tweaking, Li et al. 2023
    (arXiv:2309.02784), section 3, for others, there by gradients.
    """

    property: ClassVar[str] = "norm"
    keyword: ClassVar[str] = "tune"
    after: ClassVar[tuple[str, ...]] = ("clean", "bias")

    def tunables(self, graph: Graph, targets: Sequence[str]) -> Sequence[Tunable]:
        """The norms that layers of the targets read."""
        wanted, read = set(targets), dict[str, list[str]]()
        for weight in graph.weights():
            for layer in weight.layers if weight.name in wanted else ():
                read.setdefault(layer.input, []).append(weight.name)
        found = []
        for op in graph.ops():
            layers = tuple(dict.fromkeys(read.get(op.outputs[0], ()))) if op.outputs else ()
            if op.kind is Kind.NORM and layers:
                found.append(_tunable(graph, op, layers))
        return found


def _tunable(graph: Graph, op: Op, layers: tuple[str, ...]) -> Tunable:
    value = graph.value(op.outputs[0])
    operands = [_operand(graph, op, position) for position in (GAIN, SHIFT)]
    if operands[0] is None or value.dtype != "float32" or value.shape is None:
        return Tunable(op.name, layers, refused="its gains are no constant vector of float32")
    axis = 1 if op.function == "batch_norm" else -1
    return Tunable(op.name, layers, op.outputs[0], axis, gain=operands[0], shift=operands[1])


def _operand(graph: Graph, op: Op, position: int) -> TunedOperand | None:
    array = graph.constant(op.inputs[position]) if len(op.inputs) > position and op.inputs[position] else None
    if array is None or array.dtype != "float32" or array.size != array.shape[-1] or array.size < 2:
        return None
    return TunedOperand(op.name, position, array)
