"""How many residual branches go, decided together with bits in one integer program.

Branches go in one order, so what may be decided is how many: for each number there is a model with a loss of its own,
measured whole, and what is left of the choice is which candidate each weight that stays takes. The program with a
variable for the number falls into one for each of its values, each solved exactly, and the best of them is its answer.
"""

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from qcc.compiler.allocate.decide import BudgetError, Decision, decide
from qcc.compiler.allocate.removals import lost_whole, removals
from qcc.compiler.build.restructure import watched
from qcc.compiler.calibrate.parts import held_out
from qcc.compiler.calibrate.sources.source import DataSource
from qcc.compiler.compilation import Compilation
from qcc.compiler.first_phases import see_that_data_is_there
from qcc.compiler.measure.evidence import Evidence
from qcc.compiler.measure.sensitivity import MEASURED_SAMPLES, OUTPUT_BYTES, within
from qcc.compiler.metrics.find import additive
from qcc.compiler.model_in_work import ModelInWork
from qcc.compiler.plan.bind import depth_steps
from qcc.compiler.plan.costs import METERED, SIZE, costs_of
from qcc.compiler.plan.plan import Step
from qcc.compiler.scores.check import DROP
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import DepthPart, Policy
from qcc.ir.graph.graph import Graph
from qcc.ir.regions.residual import ResidualBranch, residual_branches
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode
from qcc.passes.structure.leave_out import LeaveOut

FEWEST = 4  # samples, where outputs are so large that fewer would be held at once


@dataclass(frozen=True)
class _Stage:
    """So many branches gone: what outputs lose, the best choice for what is left, and what the objective comes to."""

    gone: tuple[ResidualBranch, ...]
    loss: float
    decision: Decision | None = None
    cost: float = math.inf


def with_depth(run: Compilation) -> Compilation:
    """The same compilation with a policy that says which branches go, where that was left to the allocator.

    Raises:
        QccError: nothing bounds or asks for what branches would be left out for.
        BudgetError: the budget cannot be met, however many go.
    """
    part = left_open(run.policy)
    if part is None:
        return run
    _check(run.policy, part)
    closed = replace(run.policy, depth=tuple(one for one in run.policy.depth if one is not part))
    first = replace(run, policy=closed, diagnostics=Diagnostics())
    opened = first.open(None)
    step = next(iter(depth_steps(replace(closed, depth=(part,)), opened.graph.weights(), run.diagnostics)), None)
    if step is not None:
        see_that_data_is_there([step], opened.data, run.diagnostics)
    run.diagnostics.raise_if_errors()
    assert step is not None
    best, told = _Chooser(first, opened, step).best()
    names = [layer for one in best.gone for layer in layer_names(opened.graph, one)]
    left = [replace(part, globs=tuple(names), method=replace(part.method, at_most=0))] if names else []
    data = run.data
    if data is not None and not isinstance(data, str | Path | DataSource):
        data = list(opened.data.batches)  # it may have been read to its end
    return replace(run, policy=replace(closed, depth=(*closed.depth, *left)), data=data, told=told)


def left_open(policy: Policy) -> DepthPart | None:
    """What a policy says of branches of which it leaves open how many go."""
    return next((one for one in policy.depth if isinstance(one.method, LeaveOut) and one.method.is_open()), None)


def _check(policy: Policy, part: DepthPart) -> None:
    """See that there is something to leave branches out for."""
    diagnostics = Diagnostics()
    if any(one.metric == DROP for one in policy.budget):
        message = "`at_most` goes by losses that are foretold, and `drop(...)` by files that are tried"
        diagnostics.error("Q680", message, part.span, help="bound `size` or `latency`, or name the branches that go")
    elif not policy.budget and policy.minimize in additive():
        message = "`at_most` leaves out what a budget asks for, and there is none"
        diagnostics.error("Q680", message, part.span, help="add `budget { size <= 60% }`")
    diagnostics.raise_if_errors()


def layer_names(graph: Graph, branch: ResidualBranch) -> list[str]:
    """The names of a branch's layers."""
    weights = {weight.name: weight for weight in graph.weights()}
    return [layer.name for name in branch.weights for layer in weights[name].layers if layer.op in branch.ops]


def _quiet(_: object) -> None:
    """Tell nothing: what data covers is told when bits are decided."""


class _Chooser:
    """Decides on one model."""

    def __init__(self, run: Compilation, opened: ModelInWork, step: Step) -> None:
        self._run, self._opened, self._graph, self._step = run, opened, opened.graph, step
        rewritten = run.rewritten(opened)
        given = opened.data, run.phases, _quiet, run.executor, opened.inputs.folder
        evidence = Evidence.of(rewritten.graph, rewritten.plan, *given)
        self._plan, self._losses = rewritten.plan, evidence.losses()
        judges = (held_out(opened.data) if evidence.moments else None) or opened.data
        count = within(self._graph, judges, MEASURED_SAMPLES, OUTPUT_BYTES).count
        self._samples, self._metric = judges.first(max(count, FEWEST)), additive()[self._losses.metric]
        self._size_bytes = opened.file.size_bytes

    def best(self) -> tuple[_Stage, tuple[str, ...]]:
        """How many go, and what is told of it."""
        stages, error = [], None
        for stage in self._stages():
            try:
                stages.append(self._decided(stage))
            except BudgetError as infeasible:
                error = infeasible
        if not stages:
            assert error is not None
            raise error
        best = min(stages, key=lambda one: one.cost)
        gone = ", ".join(f"`{one.name}`" for one in best.gone) or "none"
        ladder = "; ".join(f"{len(one.gone)} gone: {one.loss:.3g}, with bits {self._total(one):.3g}" for one in stages)
        return best, (f"left out of at most {self._action.at_most} branches: {gone}", f"what outputs lose: {ladder}")

    @property
    def _action(self) -> LeaveOut:
        assert isinstance(self._step.action, LeaveOut)
        return self._step.action

    def _total(self, stage: _Stage) -> float:
        return stage.loss + (stage.decision.predicted_error if stage.decision else 0.0)

    def _stages(self) -> Iterator[_Stage]:
        """None gone, one, two; of what stands in for them, only what it leaves is told here."""
        yield _Stage((), 0.0)
        wanted = {site.subject for site in self._action.sites(self._graph, self._step.weights) if not site.refused}
        branches = [one for one in residual_branches(self._graph) if one.name in wanted]
        gone: list[ResidualBranch] = []
        with self._run.phases.phase("depth"):
            tick = partial(self._run.phases.tell, "depth")
            found = removals(self._graph, branches, self._action.at_most, self._samples, self._metric, tick)
            for removal in found:
                gone.append(removal.branch)
                yield _Stage(tuple(gone), self._cured(gone) if self._action.uses_data() else removal.loss)

    def _cured(self, gone: Sequence[ResidualBranch]) -> float:
        """What is lost with maps in the place of branches."""
        weights = [name for one in gone for name in one.weights]
        context = Context(watch=partial(watched, self._opened.data))
        after, _ = replace(self._action, at_most=0).apply(self._graph, weights, context)
        return lost_whole(self._graph, after, self._samples, self._metric)

    def _decided(self, stage: _Stage) -> _Stage:
        """The best choice for what is left."""
        allocate = self._plan.allocate
        assert allocate is not None
        gone = {name for one in stage.gone for name in one.weights}
        stays = [at for at, one in enumerate(allocate.options) if one.subject not in gone]
        fixed = self._fixed(gone)
        fixed_bytes = fixed.pop(SIZE)
        fixed[self._losses.metric] = stage.loss
        left = replace(allocate, options=tuple(allocate.options[at] for at in stays), fixed=fixed)
        plan = replace(self._plan, allocate=left)
        pairs = [(self._losses.loss[at], self._losses.measured[at]) for at in stays]
        losses = replace(self._losses, loss=tuple(one for one, _ in pairs), measured=tuple(one for _, one in pairs))
        decision = decide(plan, losses, fixed_bytes)
        chosen = [one.candidates[at].costs for one, at in zip(left.options, decision.choice, strict=True)]
        cost = stage.loss + decision.predicted_error
        if left.objective == SIZE or left.objective in METERED:
            start = fixed_bytes if left.objective == SIZE else fixed.get(left.objective, 0.0)
            cost = start + sum(one.get(left.objective, 0.0) for one in chosen)
        return replace(stage, decision=decision, cost=cost)

    def _fixed(self, gone: Set[str]) -> dict[str, float]:
        """What all takes that is not open, without the layers that are gone; maps in their place are not counted."""
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
                continue
            for meter in self._run.meters:
                found[meter.name] -= costs[meter.name]
        return found
