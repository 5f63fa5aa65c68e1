"""What a decided plan takes of the rows that its policy asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from qcc.compiler.plan.costs import BOUNDED, LATENCY, Meter, amount, metric_of
from qcc.compiler.plan.plan import Plan
from qcc.ir.graph.ops import Weight
from qcc.passes.contract.contract import Phase
from qcc.passes.encode import Encode


@dataclass(frozen=True)
class Taken:
    """A row, for a sample.

    Args:
        row: its name.
        before: what the model took as it came.
        after: what it takes now, as foreseen.
        unit: of both.
        note: what they go by.
    """

    row: str
    before: float
    after: float
    unit: str
    note: str

    @property
    def texts(self) -> tuple[str, str, str]:
        """Before, after, and the share that is left."""
        share = f"{100 * self.after / self.before:.1f}%" if self.before else "nothing was taken"
        return amount(self.row, self.before), amount(self.row, self.after), share

    @property
    def line(self) -> str:
        """For people."""
        before, after, share = self.texts
        return f"{self.row} {before} -> {after}, {share}; {self.note}"


def taken(meters: Sequence[Meter], plan: Plan, weights: Sequence[Weight]) -> tuple[Taken, ...]:
    """What each meter tells of a decided plan; of times that were taken the clock tells instead."""
    actions = {name: step.action for step in plan.steps if isinstance(step.action, Encode) for name in step.weights}
    others = {name: step.action for step in plan.steps if step.action.phase is Phase.ENCODE for name in step.weights}
    found = []
    for row, one in {metric_of(one.name): one for one in meters}.items():
        after = one.rest + sum(one.of(weight, actions.get(weight.name)) for weight in weights)
        after += sum(one.subject(name, others.get(name)) for name in one.subjects)
        after = max(after, 0.0) if one.after is None else one.after(actions)
        found.append(Taken(row, one.whole, after, BOUNDED[row], one.note(actions)))
    return tuple(one for one in found if one.row != LATENCY or one.note)
