"""What a machine was seen to do at most, by which its kernels are judged."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ceiling:
    """The most that one core was seen to do.

    Args:
        name: of the instruction or the memory.
        value: in ``unit``; a multiplication with its addition is two operations.
        unit: ``GFLOP/s``, ``GOP/s`` or ``GB/s``, powers of ten.
    """

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Ceilings:
    """What was measured, and when."""

    measured: str
    ceilings: tuple[Ceiling, ...]


class CeilingError(Exception):
    """Ceilings cannot be measured here."""
