"""What a metric is: a number for how far outputs are from what they should be, its unit, its text and what it costs.

A metric is one module of this folder: its name is the metric's keyword, the docstring's first line its manual page;
nothing registers it. One that is `Judged` can be bounded in ``verify``; one that is `Additive` is a row of the
allocator, which can be bounded in ``budget`` and minimised.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from qcc.compiler.metrics.texts import ratio_text, share_text

Pair = tuple[np.ndarray, np.ndarray]
Limits = tuple[float, float]
ANY = (0.0, float("inf"))


@dataclass(frozen=True)
class Compared:
    """Two runs of one output, in double precision; what is not finite in either is zero in both.

    Args:
        pairs: what is wanted and what was got, batch by batch.
        rows: the same sample by sample, flat; batch by batch where the first axis does not count samples.
    """

    pairs: Sequence[Pair]
    rows: Sequence[Pair]

    @cached_property
    def stacked(self) -> Pair | None:
        """The rows, if they are several and all of one size."""
        if len(self.rows) < 2 or len({want.size for want, _ in self.rows}) > 1 or self.rows[0][0].size == 0:
            return None
        want, have = (np.stack([pair[at] for pair in self.rows]) for at in (0, 1))
        return want, have

    @cached_property
    def signal(self) -> Pair | None:
        """The rows less their mean over the samples, each run's own: what varies tells one sample of another."""
        if self.stacked is None:
            return None
        want, have = (part - part.mean(axis=0) for part in self.stacked)
        return want, have


class OutputMetric(ABC):
    """A number that tells how far outputs are from what they should be."""

    rank: ClassVar[int] = 100
    """Where it stands in lists."""
    relation: ClassVar[Literal["<=", ">="]] = "<="
    """Which way round it is bounded."""
    units: ClassVar[Mapping[str, Limits]] = {"": ANY}
    """By unit family, the first being the default: above the first number, up to the second."""
    title: ClassVar[str] = ""
    """What tables call it; by default its name."""

    @property
    def name(self) -> str:
        """Its keyword."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def summary(self) -> str:
        """The first line of its manual page, as a list has it."""
        line = (type(self).__doc__ or "").partition("\n")[0].rstrip(".")
        return line[:1].lower() + line[1:]

    def worse(self, one: float, other: float) -> float:
        """The worse of two values."""
        return max(one, other) if self.relation == "<=" else min(one, other)

    def holds(self, value: float, limit: float) -> bool:
        """A value is within a limit."""
        return value <= limit if self.relation == "<=" else value >= limit

    @abstractmethod
    def noise(self, value: float) -> float:
        """The power of the error that a value stands for, up to a factor."""

    def text(self, value: float, unit: str = "") -> str:
        """A value in words, in the family of a unit."""
        return share_text(value) if unit == "%" else ratio_text(value, 4)


class Judged(OutputMetric):
    """A metric of two runs of an output, to which ``verify`` may hold a model."""

    told: ClassVar[bool] = False
    """Every report tells it; else it is measured where a bound names it."""
    equal: ClassVar[float] = 0.0
    """Of equal outputs."""
    lost: ClassVar[float] = float("inf")
    """Of outputs that have nothing to do with each other."""

    @abstractmethod
    def of(self, compared: Compared) -> float:
        """Of the values as they are."""

    def varying(self, compared: Compared) -> float | None:
        """Of what varies from sample to sample; None if that is not judged apart."""
        del compared
        return None

    @abstractmethod
    def changed(self, share: float) -> float:
        """Of whole numbers, of which a share differs."""

    @abstractmethod
    def without(self, value: float, share: float) -> float:
        """A value where a share of the numbers counts as lost, as noise as strong as the signal."""

    def reshaped(self, value: float, share: float) -> float:
        """A value where a share of the batches has another shape, and is lost whole."""
        return self.without(value, share)


class Additive(OutputMetric):
    """A metric that adds up over independent errors, so that the allocator can sum it over weights."""

    arguments: ClassVar[tuple[str, ...]] = ()
    """What may stand in its parentheses in ``budget``."""
    foreseen: ClassVar[bool] = False
    """What one weight costs is foreseen by gradients, not run."""

    @abstractmethod
    def powers(self, wanted: np.ndarray, got: np.ndarray) -> Pair:
        """Noise and signal, whose sums over all rows are divided; along all axes but the last as the output is.

        Args:
            wanted: numbers in double precision, finite.
            got: the same of the other run, of the same shape.
        """
