"""What execution providers take of a graph in which values are rounded: rules, read from a table."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

SIXTEEN = ("uint16", "int16")
"""Types of values that opset 21 has, and before it the domain of the runtime's own ops."""


@dataclass(frozen=True)
class QdqRules:
    """Of one provider.

    Args:
        title: as people call it.
        source: where the rules are from.
        centred: codes of zero are 0, of values and of weights.
        values: the types of their codes.
        weights: the types of theirs.
        axes: by op, along which axis of its weight scales may lie; one scale for all is taken everywhere.
        bias: ``float``, or ``int32``: whole numbers whose scale is that of what is read times the weight's.
        results: what the ops of `axes` and their like make is rounded as well; else what they read is enough.
        steps: by op and type, the step and the code of zero that what it makes must have.
    """

    title: str
    source: str
    centred: bool
    values: tuple[str, ...]
    weights: tuple[str, ...]
    axes: Mapping[str, int]
    bias: Literal["float", "int32"]
    results: bool
    steps: Mapping[str, Mapping[str, tuple[float, int]]] = field(default_factory=dict)


@lru_cache
def qdq_rules() -> Mapping[str, QdqRules]:
    """Of all providers, by the word for each."""
    path = Path(__file__).with_name("qdq.json")
    table: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {name: QdqRules(**{key: _plain(value) for key, value in one.items()}) for name, one in table.items()}


def _plain(value: Any) -> Any:  # noqa: ANN401  (JSON)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return tuple(value) if isinstance(value, list) else value
