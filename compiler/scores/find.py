"""The scores, found by their modules."""

from collections.abc import Mapping
from functools import lru_cache

import qcc.compiler.scores
from qcc.compiler.scores.score import Score
from qcc.ir.discovery import classes


@lru_cache
def scores() -> Mapping[str, Score]:
    """Every score by its name."""
    found = [one() for one in classes(qcc.compiler.scores, Score) if one is not Score]
    return {one.name: one for one in sorted(found, key=lambda one: (one.rank, one.name))}
