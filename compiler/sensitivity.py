"""What each way to encode each weight costs at the model's output, measured.

One weight at a time is replaced by what its codes decode to, and only the part of the graph after it runs. The loss is noise
power over signal power, which adds up over independent errors. Where measuring every candidate would take too long, one
candidate a weight is measured and the others follow it in proportion to their squared error in the weight.

Source: one-at-a-time measurement, Hubara et al. 2020 (arXiv:2006.10518), section 3.3; MixDQ, Zhao et al. 2024
(arXiv:2405.17873), section 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.compiler.plan import Candidate, Option
from qcc.compiler.samples import Samples
from qcc.compiler.segments import Chain, Values, cut
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph import Graph, Kind, Weight
from qcc.passes.contract import Context

MEASURED_SAMPLES = 16
OUTPUT_BYTES = 1 << 26  # of the reference outputs that are held
AFFORDABLE_MACS = 6e12  # multiply-accumulates of all suffix runs together: a minute on a few cores


@dataclass(frozen=True)
class Losses:
    """Per option and candidate, the loss at the output; ``measured`` says which were run rather than scaled."""

    loss: tuple[np.ndarray, ...]
    measured: tuple[tuple[bool, ...], ...]
    samples: int


def measure(graph: Graph, options: Sequence[Option], samples: Samples, context: Context) -> Losses:
    """Measure the candidates of all options.

    Args:
        graph: the cleaned graph.
        options: weights with their candidates.
        samples: what to run on.
        context: progress, and statistics for rounding.

    Raises:
        ModelError: a weight cannot be encoded.
    """
    probe = _Probe(graph, within(graph, samples, MEASURED_SAMPLES, OUTPUT_BYTES))
    weights = {weight.name: weight for weight in graph.weights()}
    every = _affordable(graph, options, weights, probe)
    losses, measured = [], []
    for option in options:
        context.progress(option.weight)
        loss, runs = _option(probe, graph, weights[option.weight], option, context, every)
        losses.append(loss)
        measured.append(runs)
    return Losses(tuple(losses), tuple(measured), probe.count)


class _Probe:
    """Runs the rest of a graph after a changed weight, and compares its outputs with the unchanged ones."""

    def __init__(self, graph: Graph, samples: Samples) -> None:
        self.count = samples.count
        self.chain = Chain(graph, cut(graph))
        self.states = [self.chain.states(batch) for batch in samples.batches]
        self._names = tuple(value.name for value in graph.outputs)

    def loss(self, constant: str, array: np.ndarray) -> float:
        start = self.chain.first_reader(constant)
        total = 0.0
        for states in self.states:
            outputs = self.chain.outputs(start, states[start], {constant: array})
            total += noise(outputs, {name: states[-1][name] for name in self._names})
        return total / len(self.states)


def within(graph: Graph, samples: Samples, count: int, output_bytes: int) -> Samples:
    """The first samples, at most ``count`` and no more than their outputs fit in ``output_bytes``; at least one."""
    runner = graph.runner(tuple(value.name for value in graph.inputs), tuple(value.name for value in graph.outputs))
    one = samples.first(1)
    size = sum(array.nbytes for array in runner(one.batches[0]).values()) / max(one.count, 1)
    return samples.first(max(min(count, int(output_bytes // max(size, 1))), 1))


def noise(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> float:
    """Noise power over signal power, averaged over the outputs; for whole numbers, the share that changed."""
    ratios = []
    for name, wanted in reference.items():
        got = outputs[name]
        if wanted.dtype.kind not in "fV":
            ratios.append(float(np.mean(got != wanted)) if wanted.size else 0.0)
            continue
        want64, got64 = wanted.astype(np.float64), got.astype(np.float64)
        signal = float(np.sum(want64**2))
        ratios.append(float(np.sum((got64 - want64) ** 2)) / signal if signal else 0.0)
    return float(np.mean(ratios)) if ratios else 0.0


def _option(
    probe: _Probe, graph: Graph, weight: Weight, option: Option, context: Context, every: bool
) -> tuple[np.ndarray, tuple[bool, ...]]:
    matrix = graph.matrix(weight)
    power = float(np.sum(np.square(matrix, dtype=np.float64))) or 1.0
    errors, losses = np.zeros(len(option.candidates)), np.zeros(len(option.candidates))
    runs = []
    anchor: tuple[float, float] | None = None
    for at, candidate in enumerate(option.candidates):
        decoded = _decoded(weight, matrix, candidate, context)
        if decoded is None:
            runs.append(True)
            continue
        errors[at] = float(np.sum(np.square(decoded - matrix, dtype=np.float64))) / power
        run = every or anchor is None
        runs.append(run)
        if run:
            losses[at] = probe.loss(weight.constant, _constant(graph, weight, decoded))
            anchor = anchor or (losses[at], errors[at])
        elif anchor is not None:
            losses[at] = anchor[0] * errors[at] / anchor[1] if anchor[1] else 0.0
    return losses, tuple(runs)


def _decoded(weight: Weight, matrix: np.ndarray, candidate: Candidate, context: Context) -> np.ndarray | None:
    action = candidate.action
    if action is None:
        return None
    try:
        return action.rounding.encode(weight, matrix, action.encoding, context).decode()
    except Refused as refused:
        raise ModelError("Q410", f"`{weight.name}` cannot be encoded: {refused.reason}") from refused


def _constant(graph: Graph, weight: Weight, matrix: np.ndarray) -> np.ndarray:
    original = graph.constant(weight.constant)
    assert original is not None
    return np.ascontiguousarray(weight.view.array(matrix).reshape(original.shape)).astype(original.dtype, copy=False)


def _affordable(graph: Graph, options: Sequence[Option], weights: Mapping[str, Weight], probe: _Probe) -> bool:
    """Whether every candidate can be run, by counting multiply-accumulates."""
    after = [0.0] * (len(probe.chain.pieces) + 1)
    rows = _rows(graph, probe)
    for weight in graph.weights():
        at = probe.chain.first_reader(weight.constant)
        used = [layer for layer in weight.layers if layer.kind is not Kind.EMBEDDING]
        after[at] += sum(weight.params * rows.get(layer.output, 1.0) for layer in used)
    suffix = np.cumsum(after[::-1])[::-1]
    total = sum(
        len(option.candidates) * suffix[probe.chain.first_reader(weights[option.weight].constant)] for option in options
    )
    return float(total) <= AFFORDABLE_MACS


def _rows(graph: Graph, probe: _Probe) -> dict[str, float]:
    """How many times each layer's matrix is applied on all samples: its output's elements over its rows."""
    sizes: dict[str, float] = {}
    layers = [(layer.output, weight.shape[0]) for weight in graph.weights() for layer in weight.layers]
    names = list(dict.fromkeys(output for output, _ in layers))
    if not names:
        return sizes
    runner = graph.runner(tuple(value.name for value in graph.inputs), names)
    first: Values = probe.states[0][0]
    one = {name: array[:1] if array.ndim and _free(graph, name) else array for name, array in first.items()}
    shapes = {name: array.size for name, array in runner(one).items()}
    scale = probe.count / max(len(next(iter(one.values()))), 1) if one else 1.0
    for output, out in layers:
        sizes[output] = shapes[output] / out * scale
    return sizes


def _free(graph: Graph, name: str) -> bool:
    shape = next((value.shape for value in graph.inputs if value.name == name), None)
    return bool(shape) and not isinstance(shape[0], int)  # type: ignore[index]


