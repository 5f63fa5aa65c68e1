"""What a pass is.

A pass is a frozen dataclass in a module named after it: ``clean.py`` holds ``Clean``. Its fields are its options and
are all that the language knows of it; its docstring is its manual page. It is pure: it returns a new graph and what it
did.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, TypeVar

import numpy as np

from qcc.ir.encoding import Encoded, Encoding
from qcc.ir.graph import Graph, Weight

G = TypeVar("G", bound=Graph)


class Numerics(StrEnum):
    """What a pass promises about the function; one property test holds every pass to its word."""

    EXACT = "exact"  # the same function, to floating-point error
    LOSSY = "lossy"  # another function, within the policy's budget


@dataclass(frozen=True)
class Edit:
    """One change, told in one line.

    ``error`` is what it did to a weight: noise power over signal power. ``refused`` marks what was asked and not done;
    the text is then the reason.
    """

    subject: str
    text: str
    error: float = 0.0
    refused: bool = False


def _silent(_: str) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Context:
    """What a pass may need beside the graph.

    ``grams`` holds, by weight name, the Gram matrix ``X'X / rows`` ``[in, in]`` of the inputs that the weight's linear
    layers saw on calibration data.
    """

    progress: Callable[[str], None] = _silent
    grams: Mapping[str, np.ndarray] = field(default_factory=dict)


class Pass(ABC):
    """A transformation of a graph."""

    numerics: ClassVar[Numerics]
    after: ClassVar[tuple[str, ...]] = ()

    def apply(self, graph: G, targets: Sequence[str], context: Context) -> tuple[G, list[Edit]]:
        """Transform a copy of the graph.

        Args:
            graph: left as it is.
            targets: names of the weights to treat; passes over the whole graph ignore them.
            context: progress and statistics.

        Raises:
            Refused: the pass declines a target, with the reason.
        """
        copy = graph.copy()
        return copy, self.rewrite(copy, targets, context)

    @abstractmethod
    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Transform a graph in place and tell what was done; called by `apply` alone."""


@dataclass(frozen=True)
class Between:
    """Bounds of a numeric option, both included."""

    low: float
    high: float


class Rounding(ABC):
    """A way to choose the codes of a weight: the values of the rule property ``rounding``."""

    property: ClassVar[str] = "rounding"
    uses_gram: ClassVar[bool] = False

    @abstractmethod
    def encode(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> Encoded:
        """Encode a matrix ``[out, in]``.

        Raises:
            Refused: the matrix cannot be encoded so, with the reason.
        """
