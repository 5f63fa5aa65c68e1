"""Deciding a plan so that the file itself, not an estimate of it, keeps the size budget.

What a weight's codes and scales take is known exactly; what the ops around them take, only a written file tells. So the
smallest file that the candidates allow is written first: either it breaks the budget, which is then infeasible and the
message can name the true bound, or it shows the framing, with which the integer program decides.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from qcc.compiler.allocate.decide import (
    BudgetError,
    Decision,
    decide,
    decision_of,
    smallest,
    too_small,
)
from qcc.compiler.build.run import Built
from qcc.compiler.measure.sensitivity import Losses
from qcc.compiler.plan.costs import LATENCY, SIZE
from qcc.compiler.plan.plan import Plan
from qcc.compiler.report.result import Allocation
from qcc.ir.graph.graph import Graph
from qcc.ir.model.model import Written
from qcc.passes.encode import Encode

ROUNDS = 6

Write = Callable[[Plan], tuple[Built[Graph], Written]]


@dataclass(frozen=True)
class Settled:
    """A decided plan with the file that it gave; no decision where nothing was open."""

    plan: Plan
    built: Built[Graph]
    written: Written
    decision: Decision | None = None
    losses: Losses | None = None


def settle(plan: Plan, write: Write, measure: Callable[[], Losses]) -> Settled:
    """Decide what is open in a plan, and write the file.

    Args:
        plan: bound, perhaps undecided.
        write: runs a decided plan and writes its file.
        measure: the losses of the plan's options; called once, after the budget is known to be feasible.

    Raises:
        BudgetError: the budget is infeasible.
    """
    if plan.allocate is None:
        return Settled(plan, *write(plan))
    limit = plan.most_bytes if math.isfinite(plan.most_bytes) else None
    least = smallest(plan)
    fixed = 0.0
    if limit is not None:
        built, written = write(decision_of(plan, least, None).plan)
        if written.size_bytes > limit:
            raise too_small(plan, written.size_bytes)
        chosen = (option.candidates[at] for option, at in zip(plan.allocate.options, least, strict=True))
        fixed = written.size_bytes - sum(one.costs[SIZE] for one in chosen)
    losses = measure()
    for attempt in range(ROUNDS):
        try:
            decision = decide(plan, losses, fixed)
        except BudgetError:
            if attempt == 0:
                raise
            break  # only the smallest file fits
        built, written = write(decision.plan)
        if limit is None or written.size_bytes <= limit:
            return Settled(decision.plan, built, written, decision, losses)
        fixed += (written.size_bytes - limit) * (attempt + 1)  # other formats, other ops around them
    decision = decision_of(plan, least, losses)
    return Settled(decision.plan, *write(decision.plan), decision, losses)


def allocation_of(plan: Plan, settled: Settled) -> Allocation | None:
    """What the integer program decided of a plan; None where nothing was open."""
    if plan.allocate is None or settled.decision is None or settled.losses is None:
        return None
    return Allocation(
        objective=plan.allocate.objective,
        limits=tuple(limit.source for limit in plan.allocate.limits),
        options=len(plan.allocate.options),
        candidates=sum(len(option.candidates) for option in plan.allocate.options),
        measured=sum(sum(runs) for runs in settled.losses.measured),
        gap=settled.decision.gap,
        predicted_error=settled.decision.predicted_error if settled.losses.samples else None,
        held_out=settled.losses.samples if settled.losses.held_out else 0,
        metric=settled.losses.metric,
    )


def predicted_seconds(plan: Plan, settled: Settled) -> float | None:
    """What the decided model was predicted to take for a sample; None where nothing was open."""
    if plan.allocate is None or settled.decision is None:
        return None
    chosen = zip(plan.allocate.options, settled.decision.choice, strict=True)
    decided = sum(option.candidates[at].costs.get(LATENCY, 0.0) for option, at in chosen)
    return (plan.allocate.fixed.get(LATENCY, 0.0) + decided) / 1e3


def loss_of(plan: Plan, settled: Settled) -> Callable[[str], float | None]:
    """What each weight's encoding alone costs at the outputs, by name, where that was measured.

    What a weight fell back to afterwards was not.
    """
    if plan.allocate is None or settled.decision is None or settled.losses is None or not settled.losses.samples:
        return lambda _: None
    now = {
        name: one.action.encoding
        for one in settled.plan.steps
        if isinstance(one.action, Encode)
        for name in one.weights
    }
    found: dict[str, float] = {}
    chosen = zip(plan.allocate.options, settled.losses.loss, settled.decision.choice, strict=True)
    for option, loss, choice in chosen:
        action = option.candidates[choice].action
        if now.get(option.subject) == (action.encoding if isinstance(action, Encode) else None):
            found[option.subject] = float(loss[choice])
    return found.get
