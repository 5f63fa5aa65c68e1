"""Deciding: one candidate for each weight, least predicted error within the budget, proven."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.compiler.allocate.choice import solve as multiple_choice
from qcc.compiler.allocate.choice.solve import BudgetRow, Infeasible, Problem, Solution
from qcc.compiler.measure.sensitivity import Losses
from qcc.compiler.plan.bind import encode_steps
from qcc.compiler.plan.plan import Allocate, Candidate, Kept, Limit, Plan, Step
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.passes.encode import Encode

TIME_LIMIT_S = 60.0
BYTES_WEIGH = 1e-3
SEPARATOR = ", and "


@dataclass(frozen=True)
class Decision:
    """A decided plan, the choice made for each option, how well it was proven, and what is predicted of it."""

    plan: Plan
    choice: tuple[int, ...]
    gap: float
    predicted_error: float


class BudgetError(QccError):
    """No choice of candidates satisfies the budget."""


def decide(plan: Plan, graph: Graph, losses: Losses, fixed_bytes: float) -> Decision:
    """Choose.

    Args:
        plan: with an open `Allocate`.
        graph: the cleaned graph, for the weights' sizes.
        losses: of the plan's options.
        fixed_bytes: size of the file apart from the options' weights.

    Raises:
        BudgetError: the budget is infeasible; the message names the smallest feasible value.
    """
    allocate = plan.allocate
    assert allocate is not None
    weights = {weight.name: weight for weight in graph.weights()}
    problem = _problem(allocate, plan, weights, losses, fixed_bytes)
    try:
        solution = multiple_choice.solve(problem, time_limit_s=TIME_LIMIT_S)
    except Infeasible as infeasible:
        raise _explained(allocate, infeasible, fixed_bytes, _fixed_bits(plan, weights)) from infeasible
    return decision_of(plan, solution.choice, losses, solution)


def decision_of(plan: Plan, choice: Sequence[int], losses: Losses | None, solution: Solution | None = None) -> Decision:
    """The plan in which every option has the candidate of this choice."""
    assert plan.allocate is not None
    steps: dict[Encode, list[tuple[str, str]]] = {}
    kept = []
    for option, chosen in zip(plan.allocate.options, choice, strict=True):
        candidate = option.candidates[chosen]
        if candidate.action is None:
            kept.append(Kept(option.weight, "the allocator left it float"))
        else:
            steps.setdefault(candidate.action, []).append((option.weight, candidate.source))
    error = sum(float(loss[chosen]) for loss, chosen in zip(losses.loss, choice, strict=True)) if losses else 0.0
    gap = solution.gap if solution else math.inf
    decided = replace(plan, steps=_merged(plan, steps), kept=(*plan.kept, *kept), allocate=None)
    return Decision(decided, tuple(choice), gap, error)


def smallest(plan: Plan, graph: Graph) -> tuple[int, ...]:
    """The choice of least bytes."""
    assert plan.allocate is not None
    weights = {weight.name: weight for weight in graph.weights()}
    return tuple(
        int(np.argmin([candidate_bytes(weights[option.weight], one) for one in option.candidates]))
        for option in plan.allocate.options
    )


def candidate_bytes(weight: Weight, candidate: Candidate) -> int:
    """What a weight takes in the file under a candidate."""
    if candidate.action is None:
        return weight.size_bytes
    return candidate.action.form.stored_bytes(candidate.action.encoding, weight.shape)


def candidate_bits(weight: Weight, candidate: Candidate) -> int:
    """The bits of a weight's codes, scales and zero points under a candidate, without the file's framing."""
    if candidate.action is None:
        return 8 * weight.size_bytes
    return candidate.action.encoding.size_bits(weight.shape)


def _problem(allocate: Allocate, plan: Plan, weights: dict[str, Weight], losses: Losses, fixed_bytes: float) -> Problem:
    sizes = tuple(
        np.array([candidate_bytes(weights[option.weight], one) for one in option.candidates], np.float64)
        for option in allocate.options
    )
    latencies = tuple(np.array([one.latency_ms for one in option.candidates]) for option in allocate.options)
    rows = []
    for limit in allocate.limits:
        if limit.metric == "size":
            rows.append(BudgetRow("size", sizes, limit.bound - fixed_bytes))
        elif limit.metric == "bits":
            total = sum(weight.params for weight in weights.values())
            bits = tuple(
                np.array([candidate_bits(weights[option.weight], one) / total for one in option.candidates])
                for option in allocate.options
            )
            rows.append(BudgetRow("bits", bits, limit.bound - _fixed_bits(plan, weights)))
        elif limit.metric == "latency":
            rows.append(BudgetRow("latency", latencies, limit.bound - allocate.fixed_ms))
        else:
            rows.append(BudgetRow("output_error", losses.loss, limit.bound))
    costs = {"size": sizes, "latency": _or_smaller(latencies, sizes)}.get(allocate.objective, losses.loss)
    return Problem(costs, tuple(rows))


def _or_smaller(latencies: tuple[np.ndarray, ...], sizes: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Latencies, the smaller of what is equally fast being ahead: all bytes weigh a thousandth of the time."""
    time, size = (float(sum(one.max() for one in parts)) for parts in (latencies, sizes))
    share = BYTES_WEIGH * (time or 1.0) / (size or 1.0)
    return tuple(one + share * other for one, other in zip(latencies, sizes, strict=True))


def _fixed_bits(plan: Plan, weights: dict[str, Weight]) -> float:
    """The part of the average bits that the open options do not decide."""
    total = sum(weight.params for weight in weights.values())
    bits = sum(8 * weights[kept.weight].size_bytes for kept in plan.kept)
    for step in plan.steps:
        if isinstance(step.action, Encode):
            bits += sum(step.action.encoding.size_bits(weights[name].shape) for name in step.weights)
    return bits / max(total, 1)


def too_small(plan: Plan, smallest_bytes: int) -> BudgetError:
    """What to say when even the smallest file breaks the size budget."""
    assert plan.allocate is not None
    limit = next(one for one in plan.allocate.limits if one.metric == "size")
    return _error(limit.source, _one(limit, smallest_bytes))


def _explained(allocate: Allocate, infeasible: Infeasible, fixed_bytes: float, fixed_bits: float) -> BudgetError:
    limits = {limit.metric: limit for limit in allocate.limits}
    found = []
    for name in infeasible.rows:
        limit, least = limits[name], infeasible.smallest[name]
        if not np.isfinite(least):
            least = infeasible.alone[name]
        fixed = {"size": fixed_bytes, "bits": fixed_bits, "latency": allocate.fixed_ms}
        found.append(_one(limit, least + fixed.get(name, 0.0)))
    binding = SEPARATOR.join(limits[name].source for name in infeasible.rows)
    return _error(binding, "; ".join(found))


def _error(binding: str, note: str) -> BudgetError:
    help = "allow smaller candidates, encode more layers, or loosen " + binding
    return BudgetError([Diagnostic("Q310", f"the budget cannot be met: {binding}", help=help, note=note)])


def _one(limit: Limit, least: float) -> str:
    unit = " ms" if limit.metric == "latency" else ""
    shown = f"{int(np.ceil(least)):,} bytes" if limit.metric == "size" else f"{least:.4g}{unit}"
    asked = f"{int(limit.bound):,} bytes" if limit.metric == "size" else f"{limit.bound:.4g}{unit}"
    return f"the smallest feasible {limit.metric} is {shown}, the budget is {asked}"


def _merged(plan: Plan, steps: dict[Encode, list[tuple[str, str]]]) -> tuple[Step, ...]:
    """The plan's steps with the decided encodings added to those that were fixed."""
    fixed: dict[Encode, list[tuple[str, str]]] = {}
    others: list[Step] = []
    for step in plan.steps:
        if isinstance(step.action, Encode):
            fixed.setdefault(step.action, []).extend(zip(step.weights, step.sources, strict=True))
        else:
            others.append(step)
    for action, pairs in steps.items():
        fixed.setdefault(action, []).extend(pairs)
    ordered = dict(sorted(fixed.items(), key=lambda item: (*item[0].encoding.order, item[0].form.name)))
    return (*others, *encode_steps(ordered))
