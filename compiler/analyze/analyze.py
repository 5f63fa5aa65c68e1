"""The sensitivity of every layer under every format, measured at the outputs, without a policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from qcc.compiler.analyze.score_losses import score_losses
from qcc.compiler.analyze.time_layers import layer_seconds, model_seconds
from qcc.compiler.calibrate.chosen_data import chosen_data
from qcc.compiler.calibrate.samples import Data, Samples
from qcc.compiler.console.phases import Phases, Progress, silent
from qcc.compiler.files.open_model import OpenModel, open_model
from qcc.compiler.judge.judge import Judge
from qcc.compiler.judge.prepare import Given, Prepared, drop_bounds, prepare
from qcc.compiler.measure.fisher.losses import losses_of
from qcc.compiler.measure.sensitivity import Losses
from qcc.compiler.measure.tally import NOISE
from qcc.compiler.metrics.find import additive
from qcc.compiler.metrics.metric import Additive
from qcc.compiler.observe.cluster import executor_of
from qcc.compiler.observe.executor import Executor
from qcc.compiler.plan.bind import bind
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.costs import SIZE
from qcc.compiler.plan.formats import encoding_of
from qcc.compiler.plan.plan import OpenChoice
from qcc.compiler.verify.outputs import MakeRunner
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import FormatSpec, Policy
from qcc.dsl.policy.schema import Schema
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.graph.ops import Weight
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode

FORMATS = ("int8 channel", "int6 channel", "int4 group 32", "int3 group 32", "int2 group 32")
"""What is tried where nothing is said."""
SOURCE = "--formats"
FORESEEN = "fisher"


@dataclass(frozen=True)
class TriedFormat:
    """A layer stored in a format.

    Args:
        format: as a policy spells it.
        size_bytes: what it takes in the file.
        loss: at the outputs where the layer alone is stored so, by metric.
    """

    format: str
    size_bytes: float
    loss: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True)
class AnalyzedLayer:
    """A weight with all the layers that read it.

    Args:
        name: as selectors match it.
        kinds: what its layers are.
        shape: of the matrix.
        size_bytes: that it takes now.
        seconds: that its layers take for a sample, each run alone; None where they cannot be.
        tried: the formats in which it would be smaller.
    """

    name: str
    kinds: tuple[str, ...]
    shape: tuple[int, int]
    size_bytes: int
    seconds: float | None
    tried: tuple[TriedFormat, ...]

    def loss(self, format: str, metric: str) -> float | None:
        """At the outputs; None where the layer is not stored so."""
        return next((one.loss[metric] for one in self.tried if one.format == format), None)


@dataclass(frozen=True)
class Analysis:
    """All layers, those that lose most first.

    Args:
        model: the file.
        layers: worst first by the first metric, over all formats alike.
        formats: that were tried, as they were given.
        metrics: in which losses are told.
        samples: on which they were measured, at most.
        origin: of the data.
        seconds: that the model takes for a sample; None where it cannot be timed.
        agreement: of the order of layers in the first metric and in each other, from -1 to 1, by format and metric.
        by: how ``output_error`` is known.
    """

    model: Path
    layers: tuple[AnalyzedLayer, ...]
    formats: tuple[str, ...]
    metrics: tuple[str, ...]
    samples: int
    origin: str
    seconds: float | None
    agreement: Mapping[str, Mapping[str, float]] = field(hash=False)
    by: Literal["runs", "gradients"] = "runs"


def analyze(
    model: str | Path,
    *,
    formats: str | None = None,
    metrics: Sequence[str] = ("output_error",),
    data: Data | None = None,
    dims: Mapping[str, int] | None = None,
    jobs: int | str = 1,
    by: Literal["runs", "gradients"] = "runs",
    evaluate: Given | None = None,
    progress: Progress = silent,
) -> Analysis:
    """Measure what every layer of a model loses in every format, one at a time.

    Args:
        model: an ``.onnx`` or ``.pt2`` file.
        formats: as a policy spells them, commas between; by default `FORMATS`.
        metrics: of the outputs, or scores such as ``accuracy``; the first one says which layers are worst.
        data: samples, as for ``compile``; generated if nothing is given.
        dims: sizes of the inputs' free axes by name, for data that is generated.
        jobs: processes that run the model, or the address of a cluster.
        by: ``gradients`` foresees the metric ``output_error`` by a run back for each sample, which takes PyTorch;
            layers that gradients do not reach are measured.
        evaluate: what scores the model, as for ``compile``: a function, a script, or samples with labels, if the data
            has none.
        progress: told of long work.

    Raises:
        QccError: the model, the data or a format is at fault, or there are no gradients, ``Q645`` and ``Q646``, or
            nothing tells a score, ``Q360``.
    """
    phases, path = Phases(progress), Path(model)
    judged = [name for name in metrics if name not in additive()]
    policy = _policy(formats or ", ".join(FORMATS), judged)
    with phases.phase("load"):
        opened = open_model(path)
    samples = chosen_data(policy, data, opened.graph, opened.model.reference(), dims or {})
    plan = bind(policy, opened.graph, opened.size_bytes, Diagnostics(), given=not samples.generated)
    options = plan.allocate.options if plan.allocate else ()
    losses: dict[str, Losses] = {}
    if judged:
        with phases.phase("judge"):
            prepared = prepare(policy, evaluate, data, samples, opened.graph, Diagnostics())
            samples, context = prepared.data, Context(phases.counter("judge", len(options)))
            losses |= score_losses(opened.graph, options, partial(_judge, policy, prepared), context)
    with executor_of(jobs) as executor:
        for name in (one for one in metrics if one in additive()):
            losses[name] = _losses(opened, options, samples, additive()[name], by, phases, executor)
    with phases.phase("time"):
        times = layer_seconds(opened.graph, samples, phases.counter("time", len(opened.graph.weights())))
        whole = model_seconds(opened.graph, samples)
    names = {found: spec.text for spec in _specs(policy) if (found := encoding_of(spec)) is not None}
    told = [_tried(option, at, losses, names) for at, option in enumerate(options)]
    tried = {option.subject: one for option, one in zip(options, told, strict=True)}
    layers = [_layer(weight, times, tried.get(weight.name, ())) for weight in opened.graph.weights()]
    ordered = _worst_first(layers, tuple(names.values()), metrics[0])
    agreement = _agreement(ordered, tuple(names.values()), metrics)
    count = max((one.samples for one in losses.values()), default=0)
    return Analysis(path, ordered, tuple(names.values()), tuple(metrics), count, samples.origin, whole, agreement, by)


def _judge(policy: Policy, prepared: Prepared, original: MakeRunner) -> Judge:
    assert prepared.evaluation is not None, "scores are asked for"
    return Judge(prepared.evaluation, drop_bounds(policy), original, Diagnostics())


def _policy(formats: str, judged: Sequence[str]) -> Policy:
    """Every layer may have every format, or stay as it is; what is lost of some scores is asked for.

    Raises:
        QccError: a format is wrong.
    """
    words = " | ".join(part.strip() for part in _split(formats))
    known: Schema = schema()
    bounds = ", ".join(f"drop({name}) <= 1%" for name in judged)
    verify = f"verify {{ {bounds} }}\n" if judged else ""
    return load_text(f"qpolicy 1\nrule any {{ weights = float | {words} }}\n{verify}", known, SOURCE)


def _split(formats: str) -> list[str]:
    """At commas that stand in no brackets."""
    parts, depth = [""], 0
    for letter in formats:
        depth += (letter in "({") - (letter in ")}")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def _specs(policy: Policy) -> tuple[FormatSpec, ...]:
    value = policy.rules[0].assignments[0].value
    assert isinstance(value, tuple)
    return value


def _losses(
    opened: OpenModel,
    options: Sequence[OpenChoice],
    samples: Samples,
    metric: Additive,
    by: str,
    phases: Phases,
    executor: Executor,
) -> Losses:
    with phases.phase("measure"):
        context = Context(phases.counter("measure", len(options)))
        if by == "gradients" and metric.name == NOISE.name:
            metric = additive()[FORESEEN]
        return losses_of(opened.graph, options, samples, context, metric, executor)


def _tried(
    option: OpenChoice, at: int, losses: Mapping[str, Losses], names: Mapping[Encoding, str]
) -> tuple[TriedFormat, ...]:
    found = []
    for place, candidate in enumerate(option.candidates):
        if not isinstance(candidate.action, Encode):
            continue
        lost = {metric: float(one.loss[at][place]) for metric, one in losses.items()}
        if all(np.isfinite(value) for value in lost.values()):
            found.append(TriedFormat(names[candidate.action.encoding], candidate.costs[SIZE], lost))
    return tuple(found)


def _layer(weight: Weight, times: Mapping[str, float], tried: tuple[TriedFormat, ...]) -> AnalyzedLayer:
    shape = int(weight.shape[0]), int(weight.shape[1])
    kinds = tuple(sorted(weight.kinds))
    return AnalyzedLayer(weight.name, kinds, shape, weight.size_bytes, times.get(weight.name), tried)


def _worst_first(layers: Sequence[AnalyzedLayer], formats: Sequence[str], metric: str) -> tuple[AnalyzedLayer, ...]:
    """By a layer's share of what all lose, the mean over formats; those that lose nothing as they stand."""
    shares = dict.fromkeys((one.name for one in layers), 0.0)
    for format in formats:
        lost = {one.name: max(one.loss(format, metric) or 0.0, 0.0) for one in layers}
        total = sum(lost.values())
        for name, value in lost.items():
            shares[name] += value / total if total else 0.0
    return tuple(sorted(layers, key=lambda one: -shares[one.name]))


def _agreement(
    layers: Sequence[AnalyzedLayer], formats: Sequence[str], metrics: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Rank correlations, where there are several metrics and layers enough."""
    found: dict[str, dict[str, float]] = {}
    for other in metrics[1:]:
        for format in formats:
            pairs = [(one.loss(format, metrics[0]), one.loss(format, other)) for one in layers]
            known = np.array([pair for pair in pairs if None not in pair], dtype=np.float64)
            if len(known) > 2:
                ranks = np.argsort(np.argsort(known, axis=0), axis=0)
                found.setdefault(format, {})[other] = float(np.corrcoef(ranks[:, 0], ranks[:, 1])[0, 1])
    return found
