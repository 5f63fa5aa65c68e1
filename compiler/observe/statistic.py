"""What a statistic is: a sum over the rows of a value, to which any amount of data is added."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from qcc.ir.graph.ops import Array


@dataclass(frozen=True)
class Rows:
    """Of one value, what a run gave.

    Args:
        array: the rows that count ``[rows, last axis]``.
        hidden: how many more there were that a mask hides.
        weights: what each row counts ``[rows]``; None where each counts one.
        beside: the same rows of the value that is observed beside it.
        repeated: they are of samples that were there before.
    """

    array: Array
    hidden: int = 0
    weights: Array | None = None
    beside: Array | None = None
    repeated: bool = False

    def part(self, begin: int, end: int) -> "Rows":
        """Some of the rows; those hidden stay with the first."""
        weights, beside = (None if one is None else one[begin:end] for one in (self.weights, self.beside))
        return Rows(self.array[begin:end], 0 if begin else self.hidden, weights, beside, self.repeated)


class Statistic(ABC):
    """What is remembered of the rows of a value.

    It adds up: what was gathered of parts of the data, one after the other, in other processes or before an
    interruption, is together what all of it gives. Its state is arrays, which can be written to a file.
    """

    @property
    def text(self) -> str:
        """What it is, with its options: statistics of one text are the same."""
        return type(self).__name__

    def own_rows(self, array: Array) -> Array | None:
        """The rows of a value that it takes of itself; None where they are those along the last axis."""
        return None

    @abstractmethod
    def add(self, rows: Rows) -> None:
        """More rows."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """All the rows of another."""

    @abstractmethod
    def state(self) -> dict[str, Array]:
        """All that it remembers."""

    @abstractmethod
    def restore(self, state: Mapping[str, Array]) -> None:
        """Remember what another did, and nothing else."""

    def empty(self) -> Self:
        """The same of no rows."""
        return type(self)()

    def __add__(self, other: Self) -> Self:
        """Of the rows of both."""
        found = copy.deepcopy(self)
        found.merge(other)
        return found
