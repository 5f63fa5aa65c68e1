"""What became of a loop, for people, the lock and whoever publishes its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LoopTold:
    """A loop that was written.

    Args:
        files: what goes beside the model, where it goes.
        facts: for the lock.
        lines: for people.
    """

    files: tuple[Path, ...]
    facts: Mapping[str, Any]
    lines: tuple[str, ...]
