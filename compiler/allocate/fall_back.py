"""After a failed verification: the weights that lose most become what their rules fall back to, until the bounds hold.

What a weight loses is measured at the outputs (`most_lost`), so a bound is kept by real means and nothing is guessed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from qcc.compiler.allocate.settle import Settled
from qcc.compiler.console.numbered_names import patterns
from qcc.compiler.metrics.find import judged
from qcc.compiler.plan.bind import fallbacks, steps_of
from qcc.compiler.plan.costs import SIZE, costs_of
from qcc.compiler.plan.plan import Candidate, Kept, Plan, PlanRow, Step
from qcc.compiler.scores.check import DROP
from qcc.compiler.verify.outputs import BoundCheck, Loser, Verification
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Policy
from qcc.ir.forms.choose import Chooser
from qcc.ir.graph.ops import Weight
from qcc.passes.encode import Encode

ROUNDS = 6
AIM = 0.85  # of the noise that a bound allows: what weights lose one by one adds up only roughly
LISTED = 5

Made = tuple[Settled, Path | None, Verification]
"""A decided plan with its file, the library beside it, and what became of the bounds."""


@dataclass
class FallBack:
    """What weights may still become, by name.

    Args:
        ladders: what the rules name, to be tried in order.
        weights: of the graph.
        most_bytes: that the file may take.
    """

    ladders: Mapping[str, Sequence[Candidate]]
    weights: Mapping[str, Weight]
    most_bytes: float
    fallen: dict[str, int] = field(default_factory=dict)
    """How many rungs a weight has taken."""

    @classmethod
    def of(
        cls, policy: Policy, weights: Sequence[Weight], chooser: Chooser, given: bool, most_bytes: float
    ) -> "FallBack":
        """What the rules of a policy say; data is ``given``, or generated."""
        ladders = fallbacks(policy, weights, chooser, given)
        return cls(ladders, {weight.name: weight for weight in weights}, most_bytes)

    def until_held(self, made: Made, locate: Callable[[Made], Verification], make: Callable[[Plan], Made]) -> Made:
        """What was made; where its bounds fail, made again with other formats for what loses most, a few times.

        Args:
            made: the first time.
            locate: finds the weights that lose most.
            make: carries out a decided plan.
        """
        first = made[0]
        for _ in range(ROUNDS if self.ladders else 0):
            settled, library, verification = made
            if verification.passed:
                break
            verification = locate(made)
            plan = self._relaxed(settled.plan, verification, self.most_bytes - settled.written.size_bytes)
            if plan is None:
                return settled, library, verification
            settled, library, verification = make(plan)
            made = replace(settled, decision=first.decision, losses=first.losses), library, verification
        return made

    def tell(self, verification: Verification, diagnostics: Diagnostics) -> None:
        """Say which weights fell back, and what came of it in the end."""
        if not self.fallen:
            return
        names = patterns(self.fallen)
        shown = ", ".join(f"`{name}`" for name in names[:LISTED]) + (", ..." if len(names) > LISTED else "")
        bounds = ", ".join(f"`{check.bound.text}`" for check in verification.bounds)
        data = " on generated data" if verification.generated else ""
        outcome = f"so that {bounds} holds" if verification.passed else f"and {bounds} still does not hold"
        message = f"{len(self.fallen):,} of {len(self.weights):,} weights fell back, {outcome}{data}: {shown}"
        help = "data shows whether they had to: `--data FILE.npz`" if verification.generated else None
        diagnostics.warning("Q620", message, help=help)

    def _relaxed(self, plan: Plan, verification: Verification, room: float) -> Plan | None:
        """The plan with the next rung for the weights that lose most for their bytes; None where none has one."""
        actions = {name: step.action for step in plan.steps if isinstance(step.action, Encode) for name in step.weights}
        found: list[tuple[Loser, Candidate, float]] = []
        for one in verification.losers:
            ladder = self.ladders.get(one.weight, ())[self.fallen.get(one.weight, 0) :]
            if ladder and one.weight in actions:
                now = costs_of(self.weights[one.weight], actions[one.weight], 1)[SIZE]
                found.append((one, ladder[0], ladder[0].costs[SIZE] - now))
        chosen: dict[str, Candidate] = {}
        left = max((_surplus(check) for check in verification.bounds if not check.passed), default=0.0)
        for one, rung, more in sorted(found, key=lambda each: -each[0].share / max(each[2], 1.0)):
            if left > 0 and more <= room:
                chosen[one.weight] = rung
                left, room = left - one.share, room - more
        for name in chosen:
            self.fallen[name] = self.fallen.get(name, 0) + 1
        return _changed(plan, chosen) if chosen else None


def _surplus(check: BoundCheck) -> float:
    """The share of the noise that has to go before a bound may hold."""
    value, limit = check.value, check.bound.quantity.of(1.0)
    if not math.isfinite(value):
        return 1.0
    if check.bound.metric == DROP:
        return 1 - AIM * min(limit / value, 1.0)
    noise = judged()[check.bound.metric].noise
    allowed = noise(limit) / max(noise(value), 1e-24)
    return 1 - AIM * min(max(allowed, 0.0), 1.0)


def _changed(plan: Plan, chosen: Mapping[str, Candidate]) -> Plan:
    """A decided plan in which some weights become other than it says."""
    steps: dict[Encode, list[PlanRow]] = {}
    others: list[Step] = []
    kept = list(plan.kept)
    for step in plan.steps:
        if not isinstance(step.action, Encode):
            others.append(step)
            continue
        for row in step.rows:
            candidate = chosen.get(row[0])
            action = step.action if candidate is None else candidate.action
            if candidate is not None and not isinstance(action, Encode):
                kept.append(Kept(row[0], f"fallback, {candidate.source}"))
            elif isinstance(action, Encode):
                steps.setdefault(action, []).append(row if candidate is None else candidate.row(row[0]))
    return replace(plan, steps=(*others, *steps_of(steps)), kept=tuple(kept))
