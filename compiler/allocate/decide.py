"""Deciding: one candidate for each subject, least predicted error within the budget, proven."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qcc.compiler.allocate.choice import solve as multiple_choice
from qcc.compiler.allocate.choice.balance import balance_of
from qcc.compiler.allocate.choice.solve import BudgetRow, Infeasible, Problem, Solution
from qcc.compiler.measure.sensitivity import Losses
from qcc.compiler.plan.bind import steps_of
from qcc.compiler.plan.costs import BOUNDED, METERED, PEAK, SIZE, amount, metric_of
from qcc.compiler.plan.plan import Allocate, Candidate, Kept, Limit, Plan, PlanRow, Step
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.policy.metrics import worst_of
from qcc.passes.contract.contract import Pass, Phase
from qcc.passes.encode import Encode

TIME_LIMIT_S = 60.0
BYTES_WEIGH = 1e-3
SMALLER = "allow smaller candidates, encode more layers, or loosen "
EVEN = (
    "no candidate takes less {} than another, as where all are decoded when a session starts: "
    "compute with codes, by `target cpu` or `activations = static`, or loosen "
)
SEPARATOR = ", and "


@dataclass(frozen=True)
class Decision:
    """A decided plan, the choice made for each option, how well it was proven, and what is predicted of it.

    ``room`` is what the options may take in bytes, where that is bounded. ``balance`` is what each of several metrics
    loses where their worst is minimised, and what it would if noise at the outputs were, for all layers alike.
    """

    plan: Plan
    choice: tuple[int, ...]
    gap: float
    predicted_error: float
    room: float | None = None
    balance: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class BudgetError(QccError):
    """No choice of candidates satisfies the budget."""


def decide(plan: Plan, losses: Losses, fixed_bytes: float) -> Decision:
    """Choose.

    Args:
        plan: with an open `Allocate`.
        losses: of the plan's options.
        fixed_bytes: size of the file apart from the options' weights.

    Raises:
        BudgetError: the budget is infeasible; the message names the smallest feasible value.
    """
    allocate = plan.allocate
    assert allocate is not None
    fixed = {**allocate.fixed, SIZE: fixed_bytes}
    problem = _problem(allocate, losses, fixed)
    try:
        solution = multiple_choice.solve(problem, time_limit_s=TIME_LIMIT_S)
    except Infeasible as infeasible:
        raise _explained(allocate, infeasible, fixed) from infeasible
    room = next((one.bound - fixed_bytes for one in allocate.limits if one.metric == SIZE), None)
    balanced, balance = balance_of(
        problem, solution, {name: losses.others[name] for name in worst_of(allocate.objective)}
    )
    return replace(decision_of(plan, balanced.choice, losses, balanced), room=room, balance=balance)


def uniform(plan: Plan, losses: Losses) -> list[Decision]:
    """The decisions for one format for all that may keep the budget, those predicted to lose least first.

    What stands around the weights is left out of their sizes: it is less than with several formats, and only a written
    file tells.

    Args:
        plan: with an open `Allocate`, of whose losses the objective is.
        losses: of the plan's options.
    """
    assert plan.allocate is not None
    rows = _problem(plan.allocate, losses, plan.allocate.fixed).rows
    found = []
    for choice in alike(plan):
        taken = [sum(float(w[at]) for w, at in zip(row.weight, choice, strict=True)) for row in rows]
        if all(one <= row.bound for one, row in zip(taken, rows, strict=True)):
            found.append(decision_of(plan, choice, losses))
    return sorted(found, key=lambda one: one.predicted_error)


def alike(plan: Plan) -> list[tuple[int, ...]]:
    """The choices of one way for all weights, those of least bytes first; none where more than weights is open."""
    allocate = plan.allocate
    assert allocate is not None
    if not all(option.stores_weight for option in allocate.options):
        return []
    ways = [{_way(one): at for at, one in enumerate(option.candidates)} for option in allocate.options]
    shared = [way for way in (ways[0] if ways else ()) if all(way in others for others in ways)]
    return sorted((tuple(others[way] for others in ways) for way in shared), key=lambda one: bytes_of(plan, one))


def bytes_of(plan: Plan, choice: Sequence[int]) -> float:
    """What the weights of a choice take, without what stands around them."""
    assert plan.allocate is not None
    return sum(one.candidates[at].costs[SIZE] for one, at in zip(plan.allocate.options, choice, strict=True))


def _way(candidate: Candidate) -> Hashable:
    """What is done to a weight, wherever it is decoded."""
    action = candidate.action
    return (action.encoding, action.rounding, action.activations) if isinstance(action, Encode) else action


def decision_of(plan: Plan, choice: Sequence[int], losses: Losses | None, solution: Solution | None = None) -> Decision:
    """The plan in which every option has the candidate of this choice."""
    assert plan.allocate is not None
    steps: dict[Pass, list[PlanRow]] = {}
    kept = []
    for option, chosen in zip(plan.allocate.options, choice, strict=True):
        candidate = option.candidates[chosen]
        if candidate.action is None and not option.stores_weight:
            continue
        if candidate.action is None:
            kept.append(Kept(option.subject, "the allocator left it float"))
        else:
            steps.setdefault(candidate.action, []).append(candidate.row(option.subject))
    error = sum(float(loss[chosen]) for loss, chosen in zip(losses.loss, choice, strict=True)) if losses else 0.0
    gap = solution.gap if solution else math.inf
    decided = replace(plan, steps=_merged(plan, steps), kept=(*plan.kept, *kept), allocate=None)
    return Decision(decided, tuple(choice), gap, error)


def smallest(plan: Plan) -> tuple[int, ...]:
    """The choice of least bytes."""
    assert plan.allocate is not None
    return tuple(int(np.argmin(row)) for row in _row(plan.allocate, SIZE))


def _row(allocate: Allocate, name: str) -> tuple[np.ndarray, ...]:
    """What each candidate of each option takes."""
    return tuple(np.array([one.costs.get(name, 0.0) for one in option.candidates]) for option in allocate.options)


def _problem(allocate: Allocate, losses: Losses, fixed: Mapping[str, float]) -> Problem:
    sizes, objective = _row(allocate, SIZE), allocate.objective
    rows = []
    for limit in allocate.limits:
        row = losses.loss if limit.metric == losses.metric else _row(allocate, limit.metric)
        row = losses.others.get(limit.metric, row)
        rows.append(BudgetRow(limit.metric, row, limit.bound - fixed.get(limit.metric, 0.0)))
    costs = sizes if objective == SIZE else losses.loss
    if objective in METERED:
        costs = _or_smaller(_row(allocate, objective), sizes)
    return Problem(costs, tuple(rows))


def _or_smaller(taken: tuple[np.ndarray, ...], sizes: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """What is taken, the smaller of what takes the same being ahead: all bytes weigh a thousandth of the whole."""
    whole, size = (float(sum(one.max() for one in parts)) for parts in (taken, sizes))
    share = BYTES_WEIGH * (whole or 1.0) / (size or 1.0)
    return tuple(one + share * other for one, other in zip(taken, sizes, strict=True))


def too_small(plan: Plan, smallest_bytes: int) -> BudgetError:
    """What to say when even the smallest file breaks the size budget."""
    assert plan.allocate is not None
    limit = next(one for one in plan.allocate.limits if one.metric == "size")
    return _error(limit.source, _one(limit, smallest_bytes))


def _explained(allocate: Allocate, infeasible: Infeasible, fixed: Mapping[str, float]) -> BudgetError:
    limits = {limit.metric: limit for limit in allocate.limits}
    found = dict[str, str]()
    for name in infeasible.rows:
        limit, least = limits[name], infeasible.smallest[name]
        if not np.isfinite(least):
            least = infeasible.alone[name]
        least += fixed.get(name, 0.0)
        least = _smallest_peak(allocate, fixed) if metric_of(name) == PEAK else least
        found[limit.source] = _one(limit, least)
    binding = SEPARATOR.join(found)
    even = next((name for name in infeasible.rows if metric_of(name) in BOUNDED and _even(_row(allocate, name))), None)
    return _error(binding, "; ".join(found.values()), EVEN.format(metric_of(even)) if even is not None else SMALLER)


def _smallest_peak(allocate: Allocate, fixed: Mapping[str, float]) -> float:
    """What is alive at a time where each layer takes the least: one choice is the least at all moments."""
    rows = (one.metric for one in allocate.limits if metric_of(one.metric) == PEAK)
    return max(fixed.get(row, 0.0) + sum(float(one.min()) for one in _row(allocate, row)) for row in rows)


def _even(row: tuple[np.ndarray, ...]) -> bool:
    """All candidates of a layer take the same."""
    return all(np.allclose(one, one[0]) for one in row if one.size)


def _error(binding: str, note: str, advice: str = SMALLER) -> BudgetError:
    help = advice + binding
    return BudgetError([Diagnostic("Q310", f"the budget cannot be met: {binding}", help=help, note=note)])


def _one(limit: Limit, least: float) -> str:
    name = metric_of(limit.metric)
    shown = f"{int(np.ceil(least)):,} bytes" if name == SIZE else amount(name, least)
    asked = f"{int(limit.bound):,} bytes" if name == SIZE else amount(name, limit.bound)
    return f"the smallest feasible {name} is {shown}, the budget is {asked}"


def _merged(plan: Plan, steps: Mapping[Pass, Sequence[PlanRow]]) -> tuple[Step, ...]:
    """The plan's steps with the decided ones, phase by phase; those that store weights the same way become one."""
    fixed: dict[Pass, list[PlanRow]] = {}
    others: list[Step] = []
    for step in plan.steps:
        if step.action.phase is Phase.ENCODE:
            fixed.setdefault(step.action, []).extend(step.rows)
        else:
            others.append(step)
    for action, pairs in steps.items():
        if action.phase is Phase.ENCODE:
            fixed.setdefault(action, []).extend(pairs)
        else:
            others += steps_of({action: pairs})
    ordered = dict(sorted(fixed.items(), key=lambda item: item[0].order))
    phases = list(Phase)
    return tuple(sorted((*others, *steps_of(ordered)), key=lambda step: phases.index(step.action.phase)))
