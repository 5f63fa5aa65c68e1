"""The metrics, found by their modules."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

import qcc.compiler.metrics
from qcc.compiler.metrics.metric import Additive, Judged, OutputMetric
from qcc.ir.discovery import by_name, classes


@lru_cache
def metrics() -> Mapping[str, OutputMetric]:
    """Every metric by its name."""
    found = [one() for one in classes(qcc.compiler.metrics, OutputMetric)]  # type: ignore[type-abstract]
    return by_name(sorted(found, key=lambda one: (one.rank, one.name)), lambda one: one.name)


@lru_cache
def judged() -> Mapping[str, Judged]:
    """Those that ``verify`` may bound."""
    return {name: one for name, one in metrics().items() if isinstance(one, Judged)}


@lru_cache
def additive() -> Mapping[str, Additive]:
    """Those that the allocator may sum."""
    return {name: one for name, one in metrics().items() if isinstance(one, Additive)}


def to_measure(bounded: Iterable[str] = ()) -> tuple[Judged, ...]:
    """Those that every report tells, and those that bounds name."""
    names = set(bounded)
    return tuple(one for name, one in judged().items() if one.told or name in names)
