"""What becomes of errors in a compressed model, layer by layer.

The float model and a copy that computes what the compressed one does run side by side on the same samples. Of a layer
that makes ``f(x)`` as a float and ``g(x)`` as it is stored, and that reads ``x`` in the one model and ``x'`` in the
other, the error ``g(x') - f(x)`` has three parts: its own, ``g(x) - f(x)``, what it carries on, ``f(x') - f(x)``, and
what both make together, the rest. Each counts by its share along the error, so that they add up to its power.

Source: Beyond Outliers (arXiv:2509.23500), new and carried errors and their interaction, and gains; what a layer's
input is told by there is the largest over the median magnitude.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from qcc.codegen.target.scratch import scratch
from qcc.compiler.calibrate.samples import Data, Samples
from qcc.compiler.compilation import Compilation
from qcc.compiler.console.phases import Progress, silent
from qcc.compiler.files.system_errors import told
from qcc.compiler.measure.march.imitate import imitated
from qcc.compiler.measure.sensitivity import measure
from qcc.compiler.plan.plan import Candidate, OpenChoice, Plan, PlanFile
from qcc.compiler.propagation.foretell import foretold
from qcc.compiler.propagation.parts import LayerError, PartSums
from qcc.compiler.repeat import loaded_policy
from qcc.compiler.work.sizes import ValueSizes
from qcc.dsl.policy.policy import Policy
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Kind, Layer, Weight
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode

SAMPLES = 16
HELD_BYTES = 1 << 28  # of values that are held at a time, on each side
TELLING = ("foretold", "alone", "measured", "peak", "kurtosis")
"""What may tell which layers lose most, of which the first is what propagation says."""


@dataclass(frozen=True)
class Propagation:
    """Of one compressed model.

    Args:
        model: the file.
        layers: in the order in which they run.
        samples: that both models ran on.
        origin: of the data.
        agreement: of the order of layers by each of `TELLING` with that by what they lose at the outputs, from -1 to 1;
            empty where losses were not measured.
    """

    model: Path
    layers: tuple[LayerError, ...]
    samples: int
    origin: str
    agreement: Mapping[str, float]

    @property
    def gap(self) -> float:
        """By how much the parts are off what was measured, where most."""
        return max((one.gap for one in self.layers), default=0.0)


def propagation(
    model: str | Path,
    policy: str | Path | Policy | None = None,
    *,
    plan: Plan | PlanFile | None = None,
    data: Data | None = None,
    losses: bool = True,
    progress: Progress = silent,
) -> Propagation:
    """Trace the errors of a compressed model.

    Args:
        model: an ``.onnx`` or ``.pt2`` file.
        policy: that it is compressed by, or
        plan: a decided one, as a lock has it.
        data: as for ``compile``.
        losses: measure as well what each layer alone loses at the outputs, to see what foretells it.
        progress: told of long work.

    Raises:
        QccError: the policy, the model, the plan or the data is at fault, or nothing is encoded (``Q661``).
    """
    with told(), scratch() as folder:
        loaded = loaded_policy(policy, plan, None)
        output = folder / f"{Path(model).stem}.qcc{Path(model).suffix}"
        return _Tracing.prepare(Path(model), loaded, output, data, None, progress).traced(plan, losses)


class _Tracing(Compilation):
    """A compilation that looks at what it made in place of keeping it."""

    def traced(self, plan: Plan | PlanFile | None, losses: bool) -> Propagation:
        """The errors of all layers whose weights are encoded."""
        opened = self.rewritten(self.open(plan))
        decided = self._build(opened, self.output).plan
        actions = {name: one.action for one in decided.steps if isinstance(one.action, Encode) for name in one.weights}
        if not actions or self.evidence is None:
            help = "name a policy, or the lock of a model, in which some layer is encoded"
            raise ModelError("Q661", "there is no error to trace: no layer is encoded", help=help)
        graph, context = opened.graph, self.evidence.context(decided)
        stored: dict[str, Encoded] = {}
        copy = imitated(graph, decided, replace(context, became=stored.__setitem__))
        alone = _alone(graph, actions, replace(context, chosen={name: (one, "") for name, one in stored.items()}))
        samples = opened.data.first(SAMPLES)
        pairs = [(one, layer) for one in graph.weights() if one.name in actions for layer in one.layers]
        pairs = [(one, layer) for one, layer in pairs if _told_apart(graph, copy, layer)]
        with self.phases.phase("trace"):
            tick = self.phases.counter("trace", len(pairs))
            found = _traced(graph, copy, pairs, samples, tick)
            weights = [*{weight.name: weight for weight, _ in pairs}.values()]
            told_of = foretold(graph, copy, weights, alone, samples)
            found = [replace(one, foretold=told_of.get(one.weight)) for one in found]
        agreement: dict[str, float] = {}
        if losses:
            options = [OpenChoice(name, (Candidate(None, ""), Candidate(one, ""))) for name, one in actions.items()]
            with self.phases.phase("measure"):
                counted = replace(context, progress=self.phases.counter("measure", len(options)))
                lost = measure(graph, options, samples, counted)
            by_name = {option.subject: float(loss[1]) for option, loss in zip(options, lost.loss, strict=True)}
            found = [replace(one, loss=by_name.get(one.weight)) for one in found]
            agreement = _agreement(found)
        return Propagation(self.model, tuple(found), samples.count, samples.origin, agreement)


def _alone(graph: Graph, actions: Mapping[str, Encode], context: Context) -> Callable[[Weight], Graph]:
    """Makes copies that compute what they would if one weight alone was stored."""

    def found(weight: Weight) -> Graph:
        copy = graph.copy()
        actions[weight.name].imitate(copy, (weight.name,), context)
        return copy

    return found


def _told_apart(graph: Graph, copy: Graph, layer: Layer) -> bool:
    """Both graphs have what the layer reads and makes, as tensors of floats."""
    if not layer.input or layer.kind not in (Kind.LINEAR, Kind.CONV):
        return False
    known = all(any(op.name == layer.op for op in one.ops()) for one in (graph, copy))
    return known and "float" in graph.value(layer.input).dtype


def _traced(
    graph: Graph, copy: Graph, pairs: Sequence[tuple[Weight, Layer]], samples: Samples, tick: Callable[[str], None]
) -> list[LayerError]:
    """The errors of layers, some of them at a time: as many as the values take that are held."""
    inputs = tuple(value.name for value in graph.inputs)
    sides = [{op.name: op for op in one.ops()} for one in (graph, copy)]
    found: list[LayerError] = []
    for part in _parts(graph, pairs, samples):
        reads = [layer.input for _, layer in part]
        makes = [[side[layer.op].outputs[0] for _, layer in part] for side in sides]
        whole = [
            one.runner(inputs, sorted({*reads, *made} - {*inputs}), optimise=False)
            for one, made in zip((graph, copy), makes, strict=True)
        ]
        alone = [
            [one.runner([read], [made], optimise=False) for read, made in zip(reads, names, strict=True)]
            for one, names in zip((graph, copy), makes, strict=True)
        ]
        sums = [PartSums() for _ in part]
        for batch in samples.parts(1):
            ran = [{**batch, **runner(batch)} for runner in whole]
            for at, one in enumerate(sums):
                x, now = (side[reads[at]] for side in ran)
                measured = ran[1][makes[1][at]]
                fine, through = (_only(alone[0][at], reads[at], value) for value in (x, now))
                rounded, both = (_only(alone[1][at], reads[at], value) for value in (x, now))
                one.add(x, now, (fine, through, rounded, both), measured)
        for (weight, layer), one in zip(part, sums, strict=True):
            tick(layer.name)
            found.append(one.told(layer.name, weight.name))
    return found


def _only(runner: Runner, name: str, value: Array) -> Array:
    (found,) = runner({name: value}).values()
    return found


def _parts(
    graph: Graph, pairs: Sequence[tuple[Weight, Layer]], samples: Samples
) -> Iterator[list[tuple[Weight, Layer]]]:
    """Layers whose values of one sample are held together."""
    part: list[tuple[Weight, Layer]] = []
    held = 0
    sizes = _sizes(graph, [layer for _, layer in pairs], samples)
    for weight, layer in pairs:
        size = sizes[layer.input] + sizes[layer.output]
        if part and held + size > HELD_BYTES:
            yield part
            part, held = [], 0
        part.append((weight, layer))
        held += size
    if part:
        yield part


def _sizes(graph: Graph, layers: Sequence[Layer], samples: Samples) -> dict[str, int]:
    """Bytes of what layers read and make of a sample, by shapes whose free sizes are those of the sample."""
    sizes = ValueSizes(graph, samples)
    return {name: 4 * sizes.count(name) for one in layers for name in (one.input, one.output)}


def _agreement(found: Sequence[LayerError]) -> dict[str, float]:
    known = [one for one in found if one.loss is not None and one.foretold is not None]
    if len(known) < 3:
        return {}
    losses = [one.loss for one in known]
    told = {name: float(spearmanr([getattr(one, name) for one in known], losses)[0]) for name in TELLING}
    return {name: value for name, value in told.items() if np.isfinite(value)}
