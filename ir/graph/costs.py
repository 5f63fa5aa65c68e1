"""What ways to compute a layer were measured to cost, and what that says of the processors that are asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

Ratios = Mapping[int, float]
"""Time over the float product's, by the number of rows of the activation; above 1 is slower."""


@dataclass(frozen=True)
class Way:
    """How a layer was computed when it was measured.

    Args:
        form: ``fused``, or ``kernel`` for one of ours.
        codes: what they are, as `Blocked.kind` says it.
        group: inputs that share a scale; 0 for all of them.
        activations: how they are rounded: the runtime's ``level 4`` (to int8) or ``level 0`` (not), or as the policy
            spells it for kernels.
    """

    form: str
    codes: str
    group: int
    activations: str


CapabilityTable = Mapping[Way, Ratios]


@dataclass(frozen=True)
class Cost:
    """Time over the float product's, the mean over rows, on the instruction set where it is worst."""

    ratio: float
    instructions: str

    @property
    def text(self) -> str:
        """For a report."""
        return f"{self.ratio:.2f}x the time of float on {self.instructions}"


@dataclass(frozen=True)
class Costs:
    """A target's measurements, of which the worst counts. Nothing here looks at the machine at hand.

    Args:
        tables: by instruction set.
        instructions: those of the processors that are asked for; none where a file is to run anywhere.
        activations: how kernels round what they multiply.
    """

    tables: Mapping[str, CapabilityTable]
    instructions: tuple[str, ...] = ()
    activations: str = ""

    def anywhere(self, way: Way) -> Cost | None:
        """On the instruction sets that are asked for, or on all where none is, or there is no table of one of them.

        None if it was not measured on each.
        """
        known = self.instructions and all(name in self.tables for name in self.instructions)
        return self._worst(way, self.instructions if known else self.tables)

    def as_asked(self, way: Way) -> Cost | None:
        """On the instruction sets that are asked for; None if it was not measured on each, or none is asked for."""
        return self._worst(way, self.instructions)

    def _worst(self, way: Way, names: Iterable[str]) -> Cost | None:
        found = {name: self.tables.get(name, {}).get(way) for name in names}
        costs = [Cost(mean(ratios), name) for name, ratios in found.items() if ratios is not None]
        return max(costs, key=lambda cost: cost.ratio) if found and len(costs) == len(found) else None


def mean(ratios: Ratios) -> float:
    """Geometric mean over the measured row counts: neither one token nor a large batch is favoured."""
    return float(prod(ratios.values()) ** (1 / len(ratios)))
