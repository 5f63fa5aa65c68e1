"""The least of what is minimised of which a written file still holds the bounds that only a file can be held to.

What is lost of a user's score is no sum over weights. So the choice is made again and again, with more or less of what
is minimised (size, latency, energy), each time for the least loss at the outputs; each choice is written and judged,
and what it takes is halved towards the smallest that holds. A file is taken only if it holds itself.

Source: that the same samples may judge one file after the other is fixed sequence testing, Angelopoulos et al. 2021
(arXiv:2110.01052), section 4; it holds as far as what takes more loses no more.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

from qcc.compiler.allocate.decide import BudgetError, Decision, decide
from qcc.compiler.allocate.fall_back import Made
from qcc.compiler.allocate.settle import Settled
from qcc.compiler.metrics.find import additive
from qcc.compiler.plan.costs import METERED, SIZE
from qcc.compiler.plan.plan import Allocate, Limit, Plan
from qcc.compiler.scores.find import scores
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.policy.policy import Bound

ROUNDS = 8
"""Files that are written and judged at most."""
NEAR = 1.005  # of what is minimised: choices that differ by less are not told apart
UNBOUNDED = sys.float_info.max


def foreseen(plan: Plan, bounds: tuple[Bound, ...]) -> Plan:
    """A plan whose candidates' losses are measured, because bounds on what is lost of scores want it.

    It stays as it is where nothing is open, or where loss is minimised already.
    """
    allocate = plan.allocate
    if allocate is None or not allocate.options or not bounds or allocate.objective not in (SIZE, *METERED):
        return plan
    asked = next((one.metric for one in allocate.limits if one.metric in additive()), None)
    metric = asked or scores()[str(bounds[0].argument)].loss
    limits = (Limit(metric, UNBOUNDED, one.text) for one in bounds)
    return replace(plan, allocate=replace(allocate, limits=(*allocate.limits, *limits)))


def tightened(plan: Plan, first: Made, make: Callable[[Plan], Made]) -> Made:
    """What takes least and holds its bounds; where nothing does, what loses least.

    Args:
        plan: with an open `Allocate`, in whose limits `foreseen` has put the losses.
        first: made of it: what takes least of all.
        make: writes and judges a decided plan.
    """
    allocate = plan.allocate
    settled, _, verification = first
    if verification.passed or allocate is None or settled.decision is None or settled.losses is None:
        return first
    if not any(limit.bound == UNBOUNDED for limit in allocate.limits):
        return first
    return _Search(plan, allocate, first, make).best()


@dataclass
class _Search:
    """One search, between a file that takes less and fails, and one that takes more and holds."""

    plan: Plan
    allocate: Allocate
    first: Made
    make: Callable[[Plan], Made]
    rounds: int = 1

    def best(self) -> Made:
        """What holds and takes least, at last written again."""
        low = self._taken(self._settled.decision)
        safest = self._decided(None)
        if safest is None or safest.choice == self._choice(self.first):
            return self.first
        best = self._made(safest)
        if not best[2].passed:
            return best
        high, last = self._taken(safest), best
        while self.rounds < ROUNDS and high > low * NEAR:
            middle = sqrt(max(low, high * 1e-3) * high)
            decision = self._decided(middle)
            if decision is None or decision.choice == self._choice(best):
                low = middle
                continue
            last = self._made(decision)
            if last[2].passed:
                best, high = last, self._taken(decision)
            else:
                low = middle
        if last is not best:  # its file was written over
            best = self._remade(best)
        return replace(best[0], rounds=self.rounds), best[1], best[2]

    @property
    def _settled(self) -> Settled:
        return self.first[0]

    @staticmethod
    def _choice(made: Made) -> tuple[int, ...]:
        assert made[0].decision is not None
        return made[0].decision.choice

    def _taken(self, decision: Decision | None) -> float:
        """What is minimised of a decision, as it is foreseen, with all that nothing decides."""
        assert decision is not None
        chosen = zip(self.allocate.options, decision.choice, strict=True)
        return self._fixed + sum(one.candidates[at].costs.get(self.allocate.objective, 0.0) for one, at in chosen)

    @property
    def _fixed(self) -> float:
        """What is minimised of all that is not open; of bytes, as the first file shows it."""
        if self.allocate.objective != SIZE:
            return self.allocate.fixed.get(self.allocate.objective, 0.0)
        decision = self._settled.decision
        assert decision is not None
        chosen = zip(self.allocate.options, decision.choice, strict=True)
        return self._settled.written.size_bytes - sum(one.candidates[at].costs[SIZE] for one, at in chosen)

    def _decided(self, most: float | None) -> Decision | None:
        """The choice of least loss that takes at most so much; None where there is none."""
        assert self._settled.losses is not None
        objective, limits = self.allocate.objective, self.allocate.limits
        if most is not None:
            limits = (*(one for one in limits if one.metric != objective), Limit(objective, most, objective))
        asked = replace(self.allocate, objective=self._settled.losses.metric, limits=limits)
        fixed = self._fixed if objective == SIZE else 0.0
        try:
            return decide(replace(self.plan, allocate=asked), self._settled.losses, fixed)
        except BudgetError:
            return None

    def _made(self, decision: Decision) -> Made:
        self.rounds += 1
        settled, library, verification = self.make(decision.plan)
        return replace(settled, decision=decision, losses=self._settled.losses), library, verification

    def _remade(self, made: Made) -> Made:
        settled, library, verification = self.make(made[0].plan)
        return replace(settled, decision=made[0].decision, losses=made[0].losses), library, verification


def see_budget(made: Made, bounds: tuple[Bound, ...]) -> None:
    """Hold what was made to the bounds of the budget that only a file can be held to.

    Raises:
        BudgetError: it breaks one.
    """
    wrong = [one for one in made[2].scores if one.bound in bounds and not one.passed]
    found = []
    for one in wrong:
        lost = _text(one.bound, one.drop.estimate)
        sure = "" if one.drop.upper is None else f", at most {_text(one.bound, one.drop.upper)} as far as is sure"
        note = f"the candidates that lose least lose {lost}{sure}, on {one.drop.samples:,} samples"
        help = "allow candidates of more bits (`float` among them), or loosen the bound"
        if one.unsure:
            help = "give more samples with labels, which make it surer; " + help
        message = f"the budget cannot be met: {one.bound.text}"
        found.append(Diagnostic("Q361", message, one.bound.span, help=help, note=note))
    if found:
        raise BudgetError(found)


def _text(bound: Bound, value: float) -> str:
    return f"{100 * value:.3g}%" if bound.quantity.unit == "%" else f"{value:.4g}"
