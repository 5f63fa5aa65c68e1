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

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.ir.kernel.op import LinearOp
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.contract.moments import Moments

G = TypeVar("G", bound=Graph)


class Numerics(StrEnum):
    """What a pass promises about the function; one property test holds every pass to its word."""

    EXACT = "exact"  # the same function, to floating-point error
    LOSSY = "lossy"  # another function, within the policy's budget


@dataclass(frozen=True)
class Edit:
    """One change, told in one line.

    ``error`` is what it did to a weight: noise power over signal power. ``refused`` marks what was asked and not done;
    the text is then the reason. ``layers`` names the weights that changed, or would have, where the subject is no
    weight's name. ``chosen`` tells what data decided in place of what was asked. ``ops`` are the kernel ops that
    were written for the subject.
    """

    subject: str
    text: str
    error: float = 0.0
    refused: bool = False
    layers: tuple[str, ...] = ()
    chosen: str = ""
    ops: tuple[LinearOp, ...] = ()


@dataclass(frozen=True)
class Site:
    """A place where a pass may act, found without acting: a group of channels, a norm.

    ``subject`` names it among the pass's sites, ``layers`` the weights that would change, ``refused`` why nothing can
    be done; it is empty where something can.
    """

    subject: str
    layers: tuple[str, ...]
    refused: str = ""

    @property
    def refusal(self) -> Edit:
        """What to tell of a site at which nothing can be done."""
        return Edit(self.subject, self.refused, refused=True, layers=self.layers)


def _silent(_: str) -> None:
    """Report no progress."""


def _every(_: str) -> bool:
    """Leave no site out."""
    return True


def _ignored(_name: str, _encoded: Encoded) -> None:
    """Keep nothing."""


@dataclass(frozen=True)
class Context:
    """What a pass may need beside the graph.

    ``grams`` holds, by weight name, the Gram matrix ``X'X / rows`` ``[in, in]`` of the inputs that the weight's linear
    layers saw on calibration data, ``moments`` the same in two parts, one to learn from and one to judge by, where
    there are two. ``encodings`` holds, by weight name, what the weight will be stored in, the
    narrowest where that is open; a weight that stays float has none. ``magnitudes`` tells, by weight name, how large
    the numbers are that the weight's layers read. ``takes`` tells whether a site, by its subject, is
    to be treated: a search for a guilty one leaves some out. ``became`` is told what weights are stored as.
    """

    progress: Callable[[str], None] = _silent
    grams: Mapping[str, np.ndarray] = field(default_factory=dict)
    moments: Mapping[str, Moments] = field(default_factory=dict)
    encodings: Mapping[str, Encoding] = field(default_factory=dict)
    magnitudes: Mapping[str, Magnitudes] = field(default_factory=dict)
    takes: Callable[[str], bool] = _every
    became: Callable[[str, Encoded], None] = _ignored

    def blocked(self, name: str) -> Blocked | None:
        """What a weight will be stored in, if that is codes by blocks."""
        found = self.encodings.get(name)
        return found if isinstance(found, Blocked) else None


class Pass(ABC):
    """A transformation of a graph.

    ``after`` names the passes that must have run before, where they run at all: the driver orders by it.
    ``uses_gram`` says that `Context.grams` is needed.
    """

    numerics: ClassVar[Numerics]
    after: ClassVar[tuple[str, ...]] = ()
    uses_gram: ClassVar[bool] = False

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


class Rewrite(Pass):
    """An exact pass that a rule asks for weight by weight, and that acts on sites.

    A family of them is a module that has one concrete class for each value of the rule property ``property``, which is
    called like the module: ``permute.py`` holds ``Magnitude`` for ``permute = magnitude``. A class called like the
    module itself is the value ``on``. The family treats each site that concerns a target, asks `Context.takes` before,
    and tells each site treated or refused in one `Edit` with the site's subject. What it does depends on the graph and
    the context alone. The weights keep their names, shapes, types and readers: the plan that encodes them is older.
    """

    numerics: ClassVar[Numerics] = Numerics.EXACT
    property: ClassVar[str]

    @abstractmethod
    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """Where the pass would act for these weights, and where it would but cannot; needs no data, changes nothing."""


@dataclass(frozen=True)
class Between:
    """Bounds of a numeric option, both included."""

    low: float
    high: float


class Rounding(ABC):
    """A way to choose the codes of a weight: the values of the rule property ``rounding``."""

    property: ClassVar[str] = "rounding"
    uses_gram: ClassVar[bool] = False

    def advised(
        self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context
    ) -> "tuple[Rounding, str]":
        """What data recommends for a matrix in place of this, and why; by default this.

        What is recommended is chosen by one part of the data and judged by the other.
        """
        return self, ""

    @abstractmethod
    def encode(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> Encoded:
        """Encode a matrix ``[out, in]``.

        Raises:
            Refused: the matrix cannot be encoded so, with the reason.
        """


class Activations(ABC):
    """A way to round what is multiplied with an encoded weight: the values of the rule property ``activations``."""

    property: ClassVar[str] = "activations"

    @abstractmethod
    def step(self, magnitudes: Magnitudes) -> np.float32:
        """The step of int8 for numbers of these magnitudes.

        Raises:
            Refused: there is none.
        """
