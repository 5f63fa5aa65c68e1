"""What is asked of a value, and what the data answers: one statistic of what is learned from, one of what judges."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from qcc.compiler.calibrate.parts import EVERY
from qcc.compiler.observe.statistic import Rows, Statistic
from qcc.ir.graph.ops import Array

S = TypeVar("S", bound=Statistic)


@dataclass
class Observed(Generic[S]):
    """A statistic of a value in two parts.

    Args:
        value: the value's name.
        beside: the name of the value of the other graph that it is paired with; empty if it is not.
        seen: of the samples that are not held out.
        held: of those that are; where no sample is, as of a single feed, of the last quarter of its rows.
    """

    value: str
    beside: str
    seen: S
    held: S

    @property
    def whole(self) -> S:
        """Of all samples."""
        return self.seen + self.held

    @property
    def text(self) -> str:
        """What was asked."""
        return f"{self.value} {self.beside} {self.seen.text}"

    def add(self, rows: Rows, held: bool, alone: bool) -> None:
        """More rows, of a part of the samples or, where none is held out, of samples that stand ``alone``."""
        if not alone:
            (self.held if held else self.seen).add(rows)
            return
        end = len(rows.array) - len(rows.array) // EVERY
        self.seen.add(rows.part(0, end))
        self.held.add(rows.part(end, len(rows.array)))

    def merge(self, other: "Observed[S]") -> None:
        """What another saw of other samples."""
        self.seen.merge(other.seen)
        self.held.merge(other.held)

    def state(self) -> dict[str, Array]:
        """All that it remembers."""
        parts = {"seen": self.seen, "held": self.held}
        return {f"{part}.{name}": array for part, one in parts.items() for name, array in one.state().items()}

    def restore(self, state: dict[str, Array]) -> None:
        """Remember what another did."""
        for part, one in (("seen", self.seen), ("held", self.held)):
            one.restore({name.removeprefix(f"{part}."): a for name, a in state.items() if name.startswith(f"{part}.")})
