"""What ways to keep caches cost at the outputs, in the metric of weights, so that one program decides of both.

A format's loss is that of a run of whole texts in which one cache holds codes, on the samples that weights were
measured on: rows of one run are read as what their codes stand for, so that it is the loss of runs of one token each.
What fewer rows lose is told by texts in two halves (`RowLosses`), at the logits alone; other outputs then hold other
rows, which are no noise. Losses of a format and of rows are added, as those of several weights are.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.compiler.allocate.divide_rows import RowLosses
from qcc.compiler.build.raise_graph import raise_graph
from qcc.compiler.build.rewrite import sample_of, watching
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.console.phases import Phases
from qcc.compiler.measure.evidence import lost_metric
from qcc.compiler.measure.probe import Probe
from qcc.compiler.measure.segments import Chain, cut
from qcc.compiler.measure.sensitivity import MEASURED_SAMPLES, OUTPUT_BYTES, Losses, within
from qcc.compiler.measure.tally import NOISE
from qcc.compiler.metrics.metric import Additive
from qcc.compiler.plan.costs import CACHE, TRAFFIC, asked_rows
from qcc.compiler.plan.plan import OpenChoice, Plan
from qcc.dsl.policy.policy import Policy
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array
from qcc.ir.model.in_floats import InFloats
from qcc.ir.model.model import Model
from qcc.passes.cache.cache import Cache
from qcc.passes.contract.contract import Context, Edit


@dataclass(frozen=True)
class CacheMeasurer:
    """Measures the open caches of a plan.

    Args:
        model: that the graph is of.
        graph: whose caches they are.
        data: that formats learn from, and texts whose halves are run.
        judges: the samples on which losses are measured.
        phases: are told of each cache.
    """

    model: Model[Graph]
    graph: Graph
    data: Samples
    judges: Samples
    phases: Phases

    def beside(self, plan: Plan, found: Losses) -> Losses:
        """The losses of all options of a plan, given those of weights.

        Raises:
            ModelError: a cache can be kept in none of its ways, ``Q463``, or what rows are worth cannot be told.
        """
        allocate = plan.allocate
        caches = [one for one in (allocate.options if allocate else ()) if not one.stores_weight]
        if allocate is None or not caches:
            return found
        metric = lost_metric(allocate)
        if metric is None:
            lost = [np.zeros(len(one.candidates)) for one in caches]
        else:
            with self.phases.phase("measure"):
                lost = self._losses(caches, NOISE if metric.foreseen else metric)
        known = dict(zip((one.subject for one in caches), lost, strict=True))
        weights = iter(zip(found.loss, found.measured, strict=True))
        both = [
            (known[one.subject], (metric is not None,) * len(one.candidates)) if one.subject in known else next(weights)
            for one in allocate.options
        ]
        losses, measured = zip(*both, strict=True)
        found = replace(found, loss=losses, measured=measured)
        return (
            found if metric is None else replace(found, samples=found.samples or self._held.count, metric=metric.name)
        )

    @property
    def _held(self) -> Samples:
        return within(self.graph, self.judges, MEASURED_SAMPLES, OUTPUT_BYTES)

    def _losses(self, caches: Sequence[OpenChoice], metric: Additive) -> list[Array]:
        formats = self._of_formats(caches, metric)
        rows = {key: loss for group in _with_rows(caches) for key, loss in self._of_rows(group, metric)}
        return [
            np.array(
                [
                    formats[one.subject, _format(way.action)] + rows.get((one.subject, _budget(way.action)), 0.0)
                    for way in one.candidates
                ]
            )
            for one in caches
        ]

    def _of_formats(self, caches: Sequence[OpenChoice], metric: Additive) -> dict[tuple[str, Cache | None], float]:
        """What each format of each cache loses; infinitely much where a cache is not kept so."""
        asked = [
            (one.subject, kept)
            for one in caches
            for kept in dict.fromkeys(_format(way.action) for way in one.candidates)
        ]
        opset = max((kept.opset for _, kept in asked if kept is not None), default=0)
        raised = raise_graph(self.model, self.graph, opset, self.data)
        context = Context(sample=sample_of(raised, self.data), watch=watching(self.data))
        probe = Probe(self.graph, Chain(self.graph, cut(self.graph)), self._held, metric)
        tick = self.phases.counter("measure", len(asked))
        found, why = dict[tuple[str, Cache | None], float](), dict[str, str]()
        for name, kept in asked:
            tick(name)
            found[name, kept] = 0.0
            if kept is not None:
                stored, (edit,) = kept.apply(raised, [name], context)
                if edit.refused:
                    found[name, kept], why[name] = np.inf, edit.text
                    continue
                runner = stored.runner([one.name for one in stored.inputs], [one.name for one in stored.outputs])
                found[name, kept] = probe.elsewhere(InFloats(runner, edit.caches))
        for one in caches:
            if all(np.isinf(found[one.subject, _format(way.action)]) for way in one.candidates):
                message = f"`{one.subject}` can be kept in none of its formats: {why[one.subject]}"
                raise ModelError("Q463", message, help='leave it out: `rule cache[name ~ "..."]`')
        return found

    def _of_rows(self, group: Sequence[OpenChoice], metric: Additive) -> Iterator[tuple[tuple[str, int], float]]:
        """What caches of one rule lose with fewer rows, as a share of all outputs, of which logits are one."""
        counts = sorted({_budget(way.action) for one in group for way in one.candidates})
        action = replace(_cache(group[0].candidates[0].action), budget=counts[0])
        raised = raise_graph(self.model, self.graph, action.opset, self.data)
        names = [one.subject for one in group]
        measured = replace(RowLosses.of(raised, self.graph, action, names, self.data), metric=metric)
        losses = measured.losses(counts, lambda at, of, name: self.phases.tell("measure", at, of, name))
        for name, lost in zip(names, losses, strict=True):
            for count, loss in zip(counts, lost, strict=True):
                yield (name, count), float(loss) / len(self.graph.outputs)


def see_kept(policy: Policy, plan: Plan, edits: Iterable[Edit]) -> None:
    """See that all caches that are counted as codes, or as fewer rows, became so.

    Raises:
        ModelError: one did not, and the policy bounds what caches take: ``Q465``.
    """
    names = {name for step in plan.steps if isinstance(step.action, Cache) for name in step.weights}
    stays = [edit for edit in edits if edit.refused and edit.subject in names]
    if stays and asked_rows(policy) & {CACHE, TRAFFIC}:
        message = f"what caches take is bounded, and `{stays[0].subject}` stays as it is: {stays[0].text}"
        raise ModelError("Q465", message, help='leave it out: `rule cache[name ~ "..."]`')


def _cache(action: object) -> Cache:
    assert isinstance(action, Cache), "no other pass has a budget of rows"
    return action


def _format(action: object) -> Cache | None:
    """What a way keeps rows in, of however many."""
    kept = replace(action, budget=0, share="measured") if isinstance(action, Cache) else None
    return None if kept is None or kept.nothing else kept


def _budget(action: object) -> int:
    return action.budget if isinstance(action, Cache) else 0


def _with_rows(caches: Sequence[OpenChoice]) -> list[list[OpenChoice]]:
    """Those that may have different numbers of rows, the caches of one rule together."""
    found: dict[object, list[OpenChoice]] = {}
    for one in caches:
        counts = {_budget(way.action) for way in one.candidates}
        if len(counts) > 1:
            found.setdefault(tuple(way.action for way in one.candidates), []).append(one)
    return [*found.values()]
