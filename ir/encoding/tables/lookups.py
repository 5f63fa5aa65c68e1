"""How the rows of a table are looked up: how often, when last, and together with which rows of another."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from qcc.ir.errors import ModelError, Refused

CALIBRATION = ""
"""The source of what calibration data looks up; others are files of interactions, by their names."""
WHERE_GIVEN = "/"
"""The same, but nothing is missing where no data is given; no file has this name."""
TIME = "time"
"""The array of a file of interactions that says when."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """Pairs of rows of two tables that were looked up together, in any order; compares by what it is.

    Args:
        source: the file's name.
        names: of the two columns.
        columns: the rows of each, int64 ``[pairs]``.
        times: of each pair, float64, in units of the file's own; None if it tells none.
    """

    source: str
    names: tuple[str, str]
    columns: tuple[np.ndarray, np.ndarray]
    times: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Lookups:
    """What is known of the rows of a table.

    Args:
        counts: how often each was looked up, int64 ``[rows]``.
        of: the interactions that tell so; None for calibration data.
        side: the column of those that is the table's.
    """

    counts: np.ndarray
    of: Interactions | None = None
    side: int = 0


NO_LOOKUPS: Mapping[str, Lookups] = MappingProxyType({})
"""Nothing is known."""


def lookups_of(lookups: Mapping[str, Lookups], source: str) -> Lookups:
    """What a source tells of the rows.

    Raises:
        Refused: it tells nothing.
    """
    found = lookups.get(source)
    if found is None:
        told = f"`{source}`" if source else "calibration data"
        raise Refused(f"{told} does not tell how the rows are looked up")
    return found


def interactions_of(lookups: Mapping[str, Lookups], source: str) -> Lookups:
    """The same of a source that pairs the rows with those of another table.

    Raises:
        Refused: it does not.
    """
    found = lookups_of(lookups, source)
    if found.of is None:
        raise Refused(f"`{source}` does not tell what the rows are looked up with")
    return found


def times_of(lookups: Mapping[str, Lookups], source: str, first: bool) -> np.ndarray:
    """When each row was first looked up, or last, float64; infinite of rows that never were.

    Raises:
        Refused: the source tells nothing.
        ModelError: it does not tell when.
    """
    found = interactions_of(lookups, source)
    assert found.of is not None
    if found.of.times is None:
        help = f"give it an array `{TIME}` with a number for each pair"
        raise ModelError("Q349", f"`{source}` does not tell when rows were looked up", help=help)
    times = np.full(len(found.counts), np.inf if first else -np.inf)
    (np.minimum if first else np.maximum).at(times, found.of.columns[found.side], found.of.times)
    return times


def trained_rows(lookups: Mapping[str, Lookups], source: str, until: float | None) -> np.ndarray:
    """1 for each row that was looked up, until some time if one is given, and 0 for others.

    Raises:
        Refused: the source tells nothing.
        ModelError: it does not tell when.
    """
    if until is None:
        return (interactions_of(lookups, source).counts > 0).astype(np.float64)
    return (times_of(lookups, source, first=True) <= until).astype(np.float64)
