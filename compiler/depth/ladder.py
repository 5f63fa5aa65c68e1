"""A number of changes to a model, decided together with bits in one integer program.

Changes are made in one order, so what may be decided is how many: for each number there is a model with a loss of its
own, measured whole, and what is left of the choice is which candidate each weight that stays takes. The program with a
variable for the number falls into one for each of its values, each solved exactly, and the best of them is its answer.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from qcc.compiler.allocate.decide import BudgetError, Decision, decide
from qcc.compiler.calibrate.parts import held_out
from qcc.compiler.compilation import Compilation
from qcc.compiler.measure.evidence import Evidence
from qcc.compiler.measure.sensitivity import MEASURED_SAMPLES, OUTPUT_BYTES, Losses, within
from qcc.compiler.metrics.find import additive
from qcc.compiler.model_in_work import ModelInWork
from qcc.compiler.plan.costs import METERED, SIZE, costs_of
from qcc.compiler.plan.plan import Allocate, OpenChoice, Step
from qcc.dsl.policy.policy import DepthPart
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array
from qcc.ir.regions.residual import ResidualBranch
from qcc.passes.encode import Encode

FEWEST = 4  # samples, where outputs are so large that fewer would be held at once


@dataclass(frozen=True)
class Stage:
    """So many changes made: what outputs lose, the best choice for what is left, and what the objective comes to.

    Args:
        changed: the branches, in the order in which they were.
        loss: with all of them.
        gone: the weights that are stored no more, each with the one that its layers read instead, or with none where
            they are gone, too.
    """

    changed: tuple[ResidualBranch, ...]
    loss: float
    gone: Mapping[str, str | None] = field(default_factory=dict)
    decision: Decision | None = None
    cost: float = math.inf


class Ladder(ABC):
    """Decides on one model, for one statement that leaves open how much is done."""

    verb: str
    """What is done to branches, in words."""
    word: str
    """What branches are then."""

    def __init__(self, run: Compilation, opened: ModelInWork, step: Step) -> None:
        self._run, self._opened, self._graph, self._step = run, opened, opened.graph, step
        rewritten = run.rewritten(opened)
        given = opened.data, run.phases, _quiet, run.executor, opened.inputs.folder
        evidence = Evidence.of(rewritten.graph, rewritten.plan, *given)
        self._plan, self._losses = rewritten.plan, evidence.losses()
        allocate = rewritten.plan.allocate
        others = [one.subject for one in (allocate.options if allocate else ()) if not one.stores_weight]
        if others:
            help = "give each cache one format, and bound nothing that rows count in"
            message = f"`depth` is decided together with formats of weights alone, and `{others[0]}` is open, too"
            raise ModelError("Q466", message, help=help)
        judges = (held_out(opened.data) if evidence.moments else None) or opened.data
        count = within(self._graph, judges, MEASURED_SAMPLES, OUTPUT_BYTES).count
        self._samples, self._metric = judges.first(max(count, FEWEST)), additive()[self._losses.metric]
        self._size_bytes = opened.file.size_bytes

    @abstractmethod
    def stages(self) -> Iterator[Stage]:
        """None changed, one, two."""

    @abstractmethod
    def closed(self, part: DepthPart, stage: Stage) -> list[DepthPart]:
        """What a policy says that has decided on a stage."""

    def best(self, most: int) -> tuple[Stage, tuple[str, ...]]:
        """How many are changed, and what is told of it."""
        stages, error = [], None
        for stage in self.stages():
            try:
                stages.append(self._decided(stage))
            except BudgetError as infeasible:
                error = infeasible
        if not stages:
            assert error is not None
            raise error
        best = min(stages, key=lambda one: one.cost)
        changed = ", ".join(f"`{one.name}`" for one in best.changed) or "none"
        ladder = "; ".join(
            f"{len(one.changed)} {self.word}: {one.loss:.3g}, with bits {_total(one):.3g}" for one in stages
        )
        return best, (f"{self.verb} of at most {most} branches: {changed}", f"what outputs lose: {ladder}")

    def _decided(self, stage: Stage) -> Stage:
        """The best choice for what is left."""
        allocate = self._plan.allocate
        assert allocate is not None
        options, losses = _merged(allocate, self._losses, stage.gone)
        fixed = self._fixed(stage.gone)
        fixed_bytes = fixed.pop(SIZE)
        fixed[self._losses.metric] = stage.loss
        left = replace(allocate, options=options, fixed=fixed)
        decision = decide(replace(self._plan, allocate=left), losses, fixed_bytes)
        chosen = [one.candidates[at].costs for one, at in zip(options, decision.choice, strict=True)]
        cost = stage.loss + decision.predicted_error
        if left.objective == SIZE or left.objective in METERED:
            start = fixed_bytes if left.objective == SIZE else fixed.get(left.objective, 0.0)
            cost = start + sum(one.get(left.objective, 0.0) for one in chosen)
        return replace(stage, decision=decision, cost=cost)

    def _fixed(self, gone: Mapping[str, str | None]) -> dict[str, float]:
        """What all takes that is not open, without what is gone; maps in the place of layers are not counted."""
        allocate = self._plan.allocate
        assert allocate is not None
        weights = {weight.name: weight for weight in self._graph.weights()}
        actions = {name: one.action for one in self._plan.steps for name in one.weights}
        open_ = {one.subject for one in allocate.options}
        found = {**allocate.fixed, SIZE: float(self._size_bytes - sum(one.size_bytes for one in weights.values()))}
        for name in weights.keys() - open_:
            action = actions.get(name)
            action = action if isinstance(action, Encode) else None
            costs = costs_of(weights[name], action, 1, self._run.meters, self._run.policy.floats is not None)
            if name not in gone:
                found[SIZE] += costs[SIZE]
            elif gone[name] is None:
                for meter in self._run.meters:
                    found[meter.name] -= costs[meter.name]
        return found


def layer_names(graph: Graph, branch: ResidualBranch) -> list[str]:
    """The names of a branch's layers."""
    weights = {weight.name: weight for weight in graph.weights()}
    return [layer.name for name in branch.weights for layer in weights[name].layers if layer.op in branch.ops]


def _total(stage: Stage) -> float:
    return stage.loss + (stage.decision.predicted_error if stage.decision else 0.0)


def _quiet(_: object) -> None:
    """Tell nothing: what data covers is told when bits are decided."""


def _merged(
    allocate: Allocate, losses: Losses, gone: Mapping[str, str | None]
) -> tuple[tuple[OpenChoice, ...], Losses]:
    """What is still to choose: a weight that takes another's place costs its layers' time, and loses at them, too."""
    options = {one.subject: one for one in allocate.options}
    metrics = {"": losses.loss, **losses.others}
    found = {
        one.subject: {metric: some[at] for metric, some in metrics.items()} for at, one in enumerate(allocate.options)
    }
    for name, taken in gone.items():
        if taken in options and name in options:
            options[taken], found[taken] = _both(options[taken], found[taken], options[name], found[name])
    stays = [at for at, one in enumerate(allocate.options) if one.subject not in gone]
    names = [allocate.options[at].subject for at in stays]
    left = replace(
        losses,
        loss=tuple(found[name][""] for name in names),
        measured=tuple(losses.measured[at] for at in stays),
        others={metric: tuple(found[name][metric] for name in names) for metric in losses.others},
    )
    return tuple(options[name] for name in names), left


def _both(
    one: OpenChoice, loss: Mapping[str, Array], other: OpenChoice, lost: Mapping[str, Array]
) -> tuple[OpenChoice, dict[str, Array]]:
    """A weight's candidates where the layers of another, which is stored no more, read it as well; losses by metric.

    A candidate that the other does not have was not measured at its place: there it loses and takes the most.
    """
    theirs = {candidate.action: at for at, candidate in enumerate(other.candidates)}
    where = [theirs.get(candidate.action) for candidate in one.candidates]
    total = {}
    for metric, row in loss.items():
        known = lost[metric][np.isfinite(lost[metric])]
        most = known.max() if known.size else math.inf
        total[metric] = row + np.array([most if at is None else lost[metric][at] for at in where])
    candidates = []
    for at, candidate in zip(where, one.candidates, strict=True):
        rows = [each.costs for each in (other.candidates if at is None else (other.candidates[at],))]
        more = {name: max(row.get(name, 0.0) for row in rows) for name in candidate.costs if name in METERED}
        costs = {name: value + more.get(name, 0.0) for name, value in candidate.costs.items()}
        candidates.append(replace(candidate, costs=costs))
    return OpenChoice(one.subject, tuple(candidates)), total
