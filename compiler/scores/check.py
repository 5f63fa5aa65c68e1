"""What became of a bound on what is lost of a score."""

from dataclasses import dataclass

from qcc.compiler.scores.paired import Drop
from qcc.dsl.policy.policy import Bound

DROP = "drop"
"""The metric of ``budget`` and ``verify`` whose argument names a score."""


@dataclass(frozen=True)
class ScoreCheck:
    """A score of the original and of the compressed model, and what is lost.

    Args:
        bound: of the policy.
        before: the original's score.
        after: the compressed model's.
        drop: what is lost, in the unit of the bound.
    """

    bound: Bound
    before: float
    after: float
    drop: Drop

    @property
    def limit(self) -> float:
        """What may be lost."""
        return self.bound.quantity.of(1.0)

    @property
    def passed(self) -> bool:
        """The bound holds, for all that the samples can tell."""
        return self.drop.judged <= self.limit

    @property
    def unsure(self) -> bool:
        """Only the doubt is above the bound, not what was lost."""
        return not self.passed and self.drop.estimate <= self.limit
