"""Deciding a plan so that the file itself, not an estimate of it, keeps the size budget.

What a weight's codes and scales take is known exactly; what the ops around them take, only a written file tells. So the
smallest file that the candidates allow is written first: either it breaks the budget, which is then infeasible and the
message can name the true bound, or it shows the framing, with which the integer program decides.

Losses were measured one weight at a time, and add up only as far as weights err independently. So where the choice is
not predicted to be far better than the best single format for all, both are run whole, on samples that the losses are
not of where there are enough, and what loses less is taken.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from qcc.compiler.allocate.choice.closed_form import least_loss
from qcc.compiler.allocate.choice.equal_slope import equal_slope
from qcc.compiler.allocate.decide import (
    BudgetError,
    Decision,
    alike,
    bytes_of,
    decide,
    decision_of,
    smallest,
    too_small,
    uniform,
)
from qcc.compiler.allocate.frontier import frontier
from qcc.compiler.build.run import Built
from qcc.compiler.measure.sensitivity import Losses
from qcc.compiler.plan.costs import LATENCY, SIZE
from qcc.compiler.plan.plan import Plan
from qcc.compiler.report.result import Allocation, Alternative
from qcc.ir.graph.graph import Graph
from qcc.ir.model.model import Written
from qcc.passes.encode import Encode

ROUNDS = 6
ROOM = 2e-3  # of the size, that is not worth writing another file
FAR = 4.0  # times less predicted loss: as much as weights that err together were not seen to make up for

Write = Callable[[Plan], tuple[Built[Graph], Written]]


@dataclass(frozen=True)
class Settled:
    """A decided plan with the file that it gave; no decision where nothing was open."""

    plan: Plan
    built: Built[Graph]
    written: Written
    decision: Decision | None = None
    losses: Losses | None = None
    rivals: tuple[float, float] | None = None
    """What the chosen mix of formats and the best single format lose, where both were run."""
    rounds: int = 0
    """Files that were written and judged, where what holds was searched for."""


def settle(
    plan: Plan, write: Write, measure: Callable[[], Losses], together: Callable[[], float] | None = None
) -> Settled:
    """Decide what is open in a plan, and write the file.

    Args:
        plan: bound, perhaps undecided.
        write: runs a decided plan and writes its file.
        measure: the losses of the plan's options; called once, after the budget is known to be feasible.
        together: what all weights that were last written lose together.

    Raises:
        BudgetError: the budget is infeasible.
    """
    if plan.allocate is None:
        return Settled(plan, *write(plan))
    limit = plan.most_bytes if math.isfinite(plan.most_bytes) else None
    least, fixed = smallest(plan), 0.0
    if limit is not None:
        least, size = _smallest_written(plan, least, write, limit)
        fixed = size - bytes_of(plan, least)
    losses = measure()
    made = _fitted(plan, write, losses, fixed)
    if made is None:  # of what was tried, the smallest file fits
        decision = decision_of(plan, least, losses)
        made = Settled(decision.plan, *write(decision.plan), decision, losses)
    return made if together is None else _or_uniform(plan, made, write, together)


def _smallest_written(plan: Plan, least: tuple[int, ...], write: Write, limit: float) -> tuple[tuple[int, ...], int]:
    """The choice of least bytes, and what its file takes; one format for all where only that keeps the limit.

    Several formats bring their own decoders, which in a small model weigh more than what they save.

    Raises:
        BudgetError: nothing keeps it.
    """
    smallest_file = math.inf
    for choice in dict.fromkeys((least, *alike(plan))):
        if choice != least and bytes_of(plan, choice) >= min(limit, smallest_file):
            break
        size = write(decision_of(plan, choice, None).plan)[1].size_bytes
        if size <= limit:
            return choice, size
        smallest_file = min(smallest_file, size)
    raise too_small(plan, int(smallest_file))


def _fitted(plan: Plan, write: Write, losses: Losses, fixed: float) -> Settled | None:
    """The best decision whose file keeps the size; None where none was found.

    What the ops around the weights take depends on which formats there are, so it is found out by writing: more is set
    aside where a file was too large, less where one left room. A file that is not the last to be written is written
    again.
    """
    best: Settled | None = None
    limit, too_little = plan.most_bytes, -math.inf
    for attempt in range(ROUNDS):
        try:
            decision = decide(plan, losses, fixed)
        except BudgetError:
            if attempt == 0:
                raise
            break
        if best is not None and best.decision is not None and decision.choice == best.decision.choice:
            return best
        made = Settled(decision.plan, *write(decision.plan), decision, losses)
        around, over = made.written.size_bytes - bytes_of(plan, decision.choice), made.written.size_bytes - limit
        if over > 0:
            too_little = max(too_little, fixed)
            if best is not None:
                break
            fixed = max(fixed + over * (attempt + 1), around)  # other formats, other ops around them
            continue
        best = made
        if math.isinf(limit):
            return best
        aside = max(around, too_little)
        if fixed - aside <= ROOM * limit:
            return best
        fixed = (fixed + aside) / 2 if aside == too_little else aside
    if best is None:
        return None
    built, written = write(best.plan)
    return replace(best, built=built, written=written)


def _or_uniform(plan: Plan, made: Settled, write: Write, together: Callable[[], float]) -> Settled:
    """What was made, or one format for all where that loses less."""
    assert made.losses is not None and made.decision is not None and plan.allocate is not None
    if plan.allocate.objective != made.losses.metric or not made.losses.samples:
        return made
    mixed: float | None = None
    for rival in uniform(plan, made.losses):
        if rival.choice == made.decision.choice or made.decision.predicted_error * FAR < rival.predicted_error:
            break
        mixed = together() if mixed is None else mixed
        built, written = write(rival.plan)
        if written.size_bytes > plan.most_bytes:
            continue
        rivals = mixed, together()
        if rivals[1] < mixed:
            decision = replace(rival, room=made.decision.room)
            return replace(made, plan=rival.plan, built=built, written=written, decision=decision, rivals=rivals)
        made = replace(made, rivals=rivals)
        break
    if mixed is None:
        return made
    built, written = write(made.plan)  # its file was written over
    return replace(made, built=built, written=written)


def allocation_of(plan: Plan, settled: Settled, graph: Graph) -> Allocation | None:
    """What the integer program decided of a plan for a graph; None where nothing was open."""
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
        caches=sum(not option.stores_weight for option in plan.allocate.options),
        least_error=_least(plan, settled, graph),
        equal_slope=_equal_slope(plan, settled),
        rivals=settled.rivals,
        balance=settled.decision.balance,
        rounds=settled.rounds,
        frontier=_frontier(plan, settled),
        alternatives=tuple(_alternatives(plan, settled)) if settled.losses.samples else (),
    )


def _adds_up(plan: Plan, settled: Settled) -> bool:
    """Losses are known, and nothing is open that takes no bytes of the file."""
    assert plan.allocate is not None and settled.losses is not None
    return bool(settled.losses.samples) and all(option.stores_weight for option in plan.allocate.options)


def _frontier(plan: Plan, settled: Settled) -> tuple[tuple[float, float], ...]:
    """The sizes that the file could have had, and what each would lose."""
    assert plan.allocate is not None and settled.decision is not None and settled.losses is not None
    if not _adds_up(plan, settled):
        return ()
    around = settled.written.size_bytes - bytes_of(plan, settled.decision.choice)
    sizes = [np.array([one.costs[SIZE] for one in option.candidates]) for option in plan.allocate.options]
    return frontier(sizes, settled.losses.loss, around)


def _alternatives(plan: Plan, settled: Settled) -> Iterator[Alternative]:
    assert plan.allocate is not None and settled.decision is not None and settled.losses is not None
    rows = zip(plan.allocate.options, settled.losses.loss, settled.decision.choice, strict=True)
    for option, losses, chosen in rows:
        for at, one in enumerate(option.candidates):
            if not math.isfinite(losses[at]):
                continue
            stored = one.action.encoding.text if isinstance(one.action, Encode) else one.text
            yield Alternative(option.subject, stored, one.costs[SIZE], float(losses[at]), at == chosen)


def _equal_slope(plan: Plan, settled: Settled) -> float | None:
    """What would be lost in the one budget with one price for all of what it bounds; None where there are others."""
    assert plan.allocate is not None and settled.decision is not None and settled.losses is not None
    allocate, bounded = plan.allocate, {limit.metric: limit for limit in plan.allocate.limits}
    if len(bounded) != 1 or not _adds_up(plan, settled) or allocate.objective != settled.losses.metric:
        return None
    ((row, limit),) = bounded.items()
    room = settled.decision.room if row == SIZE else limit.bound - allocate.fixed.get(row, 0.0)
    if room is None or any(row not in one.costs for option in allocate.options for one in option.candidates):
        return None
    taken = [np.array([one.costs[row] for one in option.candidates]) for option in allocate.options]
    return equal_slope(settled.losses.loss, taken, room)


def _least(plan: Plan, settled: Settled, graph: Graph) -> float | None:
    """What no choice within the size can lose less than."""
    assert plan.allocate is not None and settled.decision is not None and settled.losses is not None
    room = settled.decision.room
    if room is None or not _adds_up(plan, settled) or plan.allocate.objective != settled.losses.metric:
        return None
    params = {weight.name: weight.params for weight in graph.weights()}
    counts = [params.get(option.subject, 0) for option in plan.allocate.options]
    sizes = [np.array([one.costs[SIZE] for one in option.candidates]) for option in plan.allocate.options]
    return least_loss(settled.losses.loss, sizes, counts, room)


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
