"""The scores, found by their modules."""

from collections.abc import Mapping
from functools import lru_cache

import qcc.compiler.scores
from qcc.compiler.scores.score import Score
from qcc.ir.discovery import by_name, classes


@lru_cache
def scores() -> Mapping[str, Score]:
    """Every score by its name."""
    found = [one() for one in classes(qcc.compiler.scores, Score) if one is not Score]
    return by_name(sorted(found, key=lambda one: (one.rank, one.name)), lambda one: one.name)
