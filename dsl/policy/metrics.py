"""Several metrics: which layers count in each, and what is minimised of them."""

from dataclasses import dataclass, field

from qcc.dsl.diagnostics.source import Span
from qcc.dsl.policy.select import Selector

WORST = "max"
"""In `minimize max(...)`: what is minimised is the worst of several metrics."""


def worst_of(objective: str) -> tuple[str, ...]:
    """The metrics whose worst is minimised; none where another thing is."""
    head, _, rest = objective.partition("(")
    return tuple(rest.rstrip(")").split(", ")) if head == WORST and rest else ()


@dataclass(frozen=True)
class MetricOn:
    """Layers whose losses are counted in a metric."""

    metric: str
    selector: Selector
    span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The statement as the language spells it."""
        return f"metric {self.metric} on {self.selector.text}"
