"""Capability data as it is kept: a JSON file in a target's folder, one table for each instruction set.

``python -m benchmarks.capabilities --write`` measures the machine at hand and replaces the rows of its instruction set,
and no others.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from qcc.ir.graph.costs import CapabilityTable, Way


@lru_cache
def read(path: Path) -> Mapping[str, CapabilityTable]:
    """The tables of a file, by instruction set."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {name: {_way(row): _ratios(row) for row in one["rows"]} for name, one in data.items()}


def _way(row: Mapping[str, Any]) -> Way:
    return Way(**{field.name: row[field.name] for field in fields(Way)})


def _ratios(row: Mapping[str, Any]) -> Mapping[int, float]:
    return {int(count): ratio for count, ratio in row["ratio"].items()}
