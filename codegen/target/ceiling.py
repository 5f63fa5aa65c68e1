"""What a machine was seen to do at most, by which its kernels are judged."""

from dataclasses import dataclass

STEADY = 0.8
"""Of the best call, where a machine is quiet, the median is at least this."""


@dataclass(frozen=True)
class Ceiling:
    """The most that one core was seen to do.

    Args:
        name: of the instruction or the memory.
        value: in ``unit``, the best of many short calls; a multiplication with its addition is two operations.
        unit: ``GFLOP/s``, ``GOP/s``, ``GB/s`` or ``Gvalue/s``, powers of ten.
        usual: the median call's, in the same unit: far below the best where something else kept the machine busy.
    """

    name: str
    value: float
    unit: str
    usual: float

    @property
    def noisy(self) -> bool:
        """The best call is far from the usual one, so it may itself be too low."""
        return self.usual < STEADY * self.value


@dataclass(frozen=True)
class Ceilings:
    """What was measured, and when."""

    measured: str
    ceilings: tuple[Ceiling, ...]

    def rate(self, name: str) -> float | None:
        """Operations, bytes or values a second of a ceiling; None where it was not measured."""
        return next((one.value * 1e9 for one in self.ceilings if one.name == name), None)

    def best(self, kind: str) -> float | None:
        """The highest rate of those whose names begin so, as ``int8`` by any instruction."""
        return max((one.value * 1e9 for one in self.ceilings if one.name.startswith(kind)), default=None)


class CeilingError(Exception):
    """Ceilings cannot be measured here."""
