"""What ways to store weights cost at the outputs, foreseen by gradients: a run back a sample, not a run a candidate.

An error ``D`` of a weight moves the outputs by ``J D``, to first order. With signs ``v`` drawn for the outputs, each
over the root of its output's signal, ``<J' v, D>`` has the mean square of noise over signal: one gradient ``J' v``
tells it of every candidate of every weight. That is Fisher's information where outputs are taken as means of normal
distributions, whole rather than its diagonal, so that errors which undo each other, as those of GPTQ do, count as such.

Source: a Taylor expansion with Fisher information, FIT, Zandonati et al. 2022 (arXiv:2210.08502), section 3; traces by
drawn signs, Hutchinson 1990 (10.1080/03610919008812866).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.sensitivity import MEASURED_SAMPLES, OUTPUT_BYTES, Losses, encoded_as, within
from qcc.compiler.measure.tally import NOISE
from qcc.compiler.plan.plan import Candidate, OpenChoice
from qcc.ir.graph.gradients import Gradients
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Weight
from qcc.ir.open_file import gradients
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode

DRAWS = 64  # of signs, at least: what is told is off by a sixth, as far as the draw decides
HELD_BYTES = 1 << 29  # of the errors of weights that are held at a time


@dataclass(frozen=True)
class _Errors:
    """Of a weight, in its constant's layout, by candidate: empty where there is none, None where nothing is told."""

    weight: Weight
    errors: tuple[Array | None, ...]

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in self.errors if one is not None)


def foresee(graph: Graph, options: Sequence[OpenChoice], samples: Samples, context: Context) -> Losses:
    """What `measure` measures, of the metric ``output_error``, to first order; nothing of it counts as measured.

    Args:
        graph: the cleaned graph.
        options: weights with their candidates. Those that gradients do not reach, and candidates that round what
            layers read, are infinite.
        samples: what to run on.
        context: progress, and statistics for rounding.

    Raises:
        ModelError: there are no gradients, ``Q645`` and ``Q646``.
    """
    held = within(graph, samples, MEASURED_SAMPLES, OUTPUT_BYTES)
    weights = {weight.name: weight for weight in graph.weights()}
    asked = [weights[option.subject].constant for option in options]
    piece = gradients(graph, [value.name for value in graph.outputs if "float" in value.dtype], asked)
    batches = [*_apart(held)]
    piece.check(batches[0])
    signal = _signal(piece, batches)
    found: list[np.ndarray] = []
    for group in _groups(graph, weights, options, piece, context):
        found += _foreseen(piece, group, batches, signal)
    quiet = tuple((False,) * len(option.candidates) for option in options)
    return Losses(tuple(found), quiet, held.count, metric=NOISE.name)


def _apart(samples: Samples) -> Iterator[Batch]:
    """Samples one by one, where batches can be cut: each has signs of its own."""
    for batch in samples.batches:
        count = samples.size(batch) if samples.divisible else 1
        yield from (samples.cut(batch, at, at + 1) for at in range(count)) if count > 1 else (batch,)


def _signal(piece: Gradients, batches: Sequence[Batch]) -> dict[str, float]:
    """The power of each output over all samples; those without any lose nothing."""
    found = dict.fromkeys(piece.outputs, 0.0)
    for batch in batches:
        known = piece.known(batch)
        for name in found:
            found[name] += float(np.vdot(known[name], known[name]))
    return {name: power for name, power in found.items() if power}


def _groups(
    graph: Graph, weights: dict[str, Weight], options: Sequence[OpenChoice], piece: Gradients, context: Context
) -> Iterator[list[_Errors]]:
    """The errors of all weights, as many at a time as may be held."""
    group: list[_Errors] = []
    for option in options:
        context.progress(option.subject)
        weight = weights[option.subject]
        constant, reached = graph.constant(weight.constant), weight.constant in piece.reach
        assert constant is not None
        told = (_error(graph, weight, constant, one, context) if reached else None for one in option.candidates)
        group.append(_Errors(weight, tuple(told)))
        if sum(one.nbytes for one in group) > HELD_BYTES:
            yield group
            group = []
    yield group


def _error(graph: Graph, weight: Weight, constant: Array, candidate: Candidate, context: Context) -> Array | None:
    action = candidate.action
    if action is None:
        return np.zeros(0)
    if not isinstance(action, Encode) or action.activations is not None:
        return None
    encoded = encoded_as(weight, graph.matrix(weight), candidate, context)
    return None if encoded is None else np.asarray(graph.as_constant(weight, encoded.decode()) - constant)


def _foreseen(
    piece: Gradients, group: Sequence[_Errors], batches: Sequence[Batch], signal: dict[str, float]
) -> list[np.ndarray]:
    """The losses of a group's candidates, by weight."""
    draw, times = np.random.default_rng(0), -(-DRAWS // len(batches))
    totals = [np.array([np.inf if error is None else 0.0 for error in one.errors]) for one in group]
    for batch in batches if signal else ():
        known = piece.known(batch)
        for _ in range(times):
            signs = {
                name: (draw.choice((-1.0, 1.0), known[name].shape) / np.sqrt(power * len(piece.outputs))).astype(
                    known[name].dtype
                )
                for name, power in signal.items()
            }
            pulled = piece.pulled(known, signs)
            for one, total in zip(group, totals, strict=True):
                for at, error in enumerate(one.errors):
                    if error is not None and error.size:
                        total[at] += float(np.vdot(pulled[one.weight.constant], error)) ** 2 / times
    return totals
