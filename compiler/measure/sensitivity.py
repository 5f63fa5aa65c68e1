"""What each way to encode each weight costs at the model's output, measured.

One weight at a time is replaced by what its codes decode to, and only the part of the graph after it runs. The loss is
noise power over signal power, which adds up over independent errors. A candidate that encodes what the layers read as
well is run with that, in pieces of its own. Candidates whose squared errors in the weight are
within a factor of each other share one run and are scaled by that error; as many samples are run as the work allows.

Source: one-at-a-time measurement, Hubara et al. 2020 (arXiv:2006.10518), section 3.3; MixDQ, Zhao et al. 2024
(arXiv:2405.17873), section 4.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.probe import Probe
from qcc.compiler.measure.segments import Chain, Segment, cut, first_reader
from qcc.compiler.measure.tally import NOISE
from qcc.compiler.metrics.metric import Additive
from qcc.compiler.observe.executor import HERE, Executor
from qcc.compiler.plan.plan import Candidate, OpenChoice
from qcc.ir.encoding.blocks import row_by_row
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Weight
from qcc.ir.regions.flow import Flow
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode, relative_error

MEASURED_SAMPLES = 64
OUTPUT_BYTES = 1 << 26  # of the reference outputs that are held
AFFORDABLE_MACS = 4e12  # multiply-accumulates of all suffix runs together: about a minute on two cores
ALIKE = 2.0  # candidates whose errors in the weight differ by less share a run


@dataclass(frozen=True)
class Losses:
    """Per option and candidate, the loss at the output; ``measured`` says which were run rather than scaled.

    Without any ``samples`` nothing is known of them.
    ``held_out`` says that the samples are none of those that chose the codes, ``metric`` what the losses are of.
    ``others`` are the losses in metrics that count some of the options alone, and zero for all that they do not count.
    """

    loss: tuple[np.ndarray, ...]
    measured: tuple[tuple[bool, ...], ...]
    samples: int
    held_out: bool = False
    metric: str = NOISE.name
    others: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)

    def but(self, others: Mapping[int, tuple[np.ndarray, tuple[bool, ...]]]) -> "Losses":
        """With other losses for some options, and which of them were run."""
        loss = tuple(others[at][0] if at in others else one for at, one in enumerate(self.loss))
        runs = tuple(others[at][1] if at in others else one for at, one in enumerate(self.measured))
        return replace(self, loss=loss, measured=runs)


def unmeasured(options: Sequence[OpenChoice]) -> Losses:
    """No losses, for a decision that asks for none."""
    counts = [len(option.candidates) for option in options]
    return Losses(tuple(np.zeros(count) for count in counts), tuple((False,) * count for count in counts), 0)


def measure(
    graph: Graph,
    options: Sequence[OpenChoice],
    samples: Samples,
    context: Context,
    metric: Additive = NOISE,
    executor: Executor = HERE,
) -> Losses:
    """Measure the candidates of all options.

    Args:
        graph: the cleaned graph.
        options: weights with their candidates.
        samples: what to run on.
        context: progress, and statistics for rounding.
        metric: what is lost.
        executor: where it is run.

    Raises:
        ModelError: a weight cannot be encoded.
    """
    pieces = cut(graph)
    held = within(graph, samples, MEASURED_SAMPLES, OUTPUT_BYTES)
    held = held.first(int(AFFORDABLE_MACS // max(_macs_per_sample(graph, options, pieces, held), 1)))
    away = executor.workers > 1
    probing = _Probing(graph, pieces, held, replace(context, progress=_quiet) if away else context, metric)
    found = []
    for option, one in zip(options, executor.each(probing, options), strict=True):
        found.append(one)
        if away:
            context.progress(option.subject)
    return Losses(tuple(loss for loss, _ in found), tuple(runs for _, runs in found), held.count, metric=metric.name)


Measured = tuple[np.ndarray, tuple[bool, ...]]


@dataclass(frozen=True)
class _Probing:
    """Makes what measures one option, wherever that is done."""

    graph: Graph
    pieces: Sequence[Segment]
    samples: Samples
    context: Context
    metric: Additive

    def __call__(self) -> Callable[[OpenChoice], Measured]:
        probe = Probe(self.graph, Chain(self.graph, self.pieces), self.samples, self.metric)
        weights = {weight.name: weight for weight in self.graph.weights()}
        return lambda option: _option(probe, self.graph, weights[option.subject], option, self.context)


def _quiet(_: str) -> None:
    """Tell nothing: whoever takes the results does."""


def within(graph: Graph, samples: Samples, count: int, output_bytes: int) -> Samples:
    """The first samples, at most ``count`` and no more than their outputs fit in ``output_bytes``; at least one."""
    runner = graph.runner(tuple(value.name for value in graph.inputs), tuple(value.name for value in graph.outputs))
    one = samples.first(1)
    size = sum(array.nbytes for array in flattened(runner(one.batches[0])).values()) / max(one.count, 1)
    return samples.first(max(min(count, int(output_bytes // max(size, 1))), 1))


def _option(probe: Probe, graph: Graph, weight: Weight, option: OpenChoice, context: Context) -> Measured:
    context.progress(option.subject)
    matrix = row_by_row(graph.matrix(weight))
    encoded = [encoded_as(weight, matrix, candidate, context) for candidate in option.candidates]
    errors = np.array([0.0 if one is None else relative_error(matrix, one.decode()) for one in encoded])
    losses, runs = np.zeros(len(encoded)), [one is None for one in encoded]
    for at, candidate in enumerate(option.candidates):
        if candidate.action is not None and encoded[at] is None:
            losses[at] = np.inf
    if np.isinf(losses).all():
        message = f"`{weight.name}` can be encoded in none of its candidates"
        raise ModelError("Q410", message, help="add `float` to them, or `scale fp32`")
    alone: list[int] = []
    for at, (one, candidate) in enumerate(zip(encoded, option.candidates, strict=True)):
        if one is None:
            continue
        action = candidate.action
        if isinstance(action, Encode) and action.activations is not None:
            decoded = {weight.constant: graph.as_constant(weight, one.decode())}
            losses[at], runs[at] = probe.loss(decoded, _rounding(probe, graph, weight, action, context)), True
        else:
            alone.append(at)

    def lost(at: int) -> float:
        one = encoded[alone[at]]
        assert one is not None
        return probe.loss({weight.constant: graph.as_constant(weight, one.decode())})

    found, ran = losses_along(errors[alone], lost, ALIKE)
    for at, loss, run in zip(alone, found, ran, strict=True):
        losses[at], runs[at] = loss, run
    return losses, tuple(runs)


def losses_along(errors: np.ndarray, lost: Callable[[int], float], alike: float) -> tuple[np.ndarray, list[bool]]:
    """What ways to store a weight lose, and which of them were run.

    Args:
        errors: of each, in the weight.
        lost: runs one.
        alike: how far errors may differ for one run to stand for both, scaled by them.
    """
    losses, runs = np.zeros(len(errors)), [False] * len(errors)
    anchor = -1
    for at in map(int, np.argsort(errors, kind="stable")):
        if errors[at] == 0:
            continue
        if anchor < 0 or errors[at] > alike * errors[anchor]:
            losses[at], runs[at], anchor = lost(at), True, at
        else:
            losses[at] = losses[anchor] * errors[at] / errors[anchor]
    return losses, runs


def _rounding(probe: Probe, graph: Graph, weight: Weight, action: Encode, context: Context) -> Chain:
    """The chain with what the weight's layers read encoded as an action says."""
    assert action.activations is not None
    rounded = graph.copy()
    try:
        reading = weight.reading(action.activations.encoding(action.form))
        action.round_values(rounded, Flow(graph), reading, context)
    except Refused as refused:
        raise ModelError("Q410", f"`{weight.name}` cannot be encoded: {refused.reason}") from refused
    return probe.chain.where(weight.constant, rounded)


def encoded_as(weight: Weight, matrix: np.ndarray, candidate: Candidate, context: Context) -> Encoded | None:
    """What a candidate makes of a weight; None where it leaves it as it is, or cannot hold it.

    Raises:
        ModelError: the weight itself is at fault.
    """
    action = candidate.action
    if not isinstance(action, Encode):
        assert action is None, "a plan that stores weights otherwise is refused where it is read"
        return None
    try:
        return action.encoded(weight, matrix, context)[0]
    except Refused as refused:
        if refused.broken:
            raise ModelError("Q410", f"`{weight.name}` cannot be encoded: {refused.reason}") from refused
        return None  # forbidden: it would stay as it is


def _macs_per_sample(graph: Graph, options: Sequence[OpenChoice], pieces: Sequence[Segment], samples: Samples) -> float:
    """Multiply-accumulates on one sample if every candidate's suffix were run."""
    work = [0.0] * len(pieces)
    rows = _rows(graph, samples.first(1))
    for weight in graph.weights():
        used = [layer for layer in weight.layers if layer.kind is not Kind.EMBEDDING]
        work[first_reader(pieces, weight.constant)] += sum(weight.params * rows[layer.output] for layer in used)
    suffix = np.cumsum(work[::-1])[::-1]
    constants = {weight.name: weight.constant for weight in graph.weights()}
    return float(sum(len(one.candidates) * suffix[first_reader(pieces, constants[one.subject])] for one in options)) / 2


def _rows(graph: Graph, one: Samples) -> dict[str, float]:
    """How many times each layer's matrix is applied on a sample: its output's elements over its rows."""
    layers = [(layer.output, weight.shape[0]) for weight in graph.weights() for layer in weight.layers]
    if not layers:
        return {}
    runner = graph.runner(tuple(value.name for value in graph.inputs), sorted({output for output, _ in layers}))
    sizes = {name: array.size for name, array in runner(one.batches[0]).items()}
    return {output: sizes[output] / rows / one.count for output, rows in layers}
