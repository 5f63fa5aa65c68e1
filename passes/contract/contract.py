"""What a pass is.

A pass is a frozen dataclass in a module named after it: ``clean.py`` holds ``Clean``. Its fields are its options and
are all that the language knows of it; its docstring is its manual page. It is pure: it returns a new graph and what it
did.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, TypeVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.cached.stored import StoredCache
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.tables.lookups import Lookups
from qcc.ir.graph.form import Form
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Feeds, Weight
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.passes.contract.holes import Holes
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.contract.moments import Moments
from qcc.passes.contract.spread import Spread
from qcc.passes.contract.tunable import ChannelFit, Tunable

G = TypeVar("G", bound=Graph)


class Invariant(StrEnum):
    """What a pass may promise to leave as it is; the driver holds it to its word, and so does one property test."""

    FUNCTION = "function"  # to floating-point error
    WEIGHTS = "weights"  # their names, and the layers that read them
    SHAPES = "shapes"  # the shapes and types of the weights that stay


EVERYTHING = frozenset(Invariant)


class Phase(StrEnum):
    """When a pass runs, in this order. Rules are bound to the weights after `STRUCTURE`, which may change them."""

    CLEAN = "clean"
    BRANCHES = "branches"
    STRUCTURE = "structure"
    REWRITE = "rewrite"
    TUNE = "tune"
    ENCODE = "encode"
    HALF = "half"


@dataclass(frozen=True)
class Edit:
    """One change, told in one line.

    ``error`` is what it did to a weight: noise power over signal power. ``refused`` marks what was asked and not done;
    the text is then the reason. ``layers`` names the weights that changed, or would have, where the subject is no
    weight's name. ``chosen`` tells what data decided in place of what was asked. ``ops`` are the kernel ops that
    were written for the subject. ``stored`` is the encoding that a weight got, with all decided that was left open,
    ``spread`` how its numbers lie, and ``holes`` what it keeps where some is gone. ``gathered`` is the share of
    saliency that blocks of the layers keep in the order before, and in the new one. ``code`` is that of the warning
    that tells of what was refused. ``what`` is the class of a subject that is no weight, ``row_bytes`` what a row of a
    cache took, and takes, ``most_rows`` how many stay, 0 for all, and ``caches`` what is fed and returned then.
    """

    subject: str
    text: str
    error: float = 0.0
    refused: bool = False
    layers: tuple[str, ...] = ()
    chosen: str = ""
    ops: tuple[KernelOp, ...] = ()
    stored: Encoding | None = None
    spread: Spread | None = None
    holes: Holes | None = None
    gathered: tuple[float, float] | None = None
    code: str = "Q411"
    what: str = ""
    row_bytes: tuple[float, float] | None = None
    most_rows: int = 0
    caches: tuple[StoredCache, ...] = ()


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


Watch = Callable[[Graph, Sequence[str], bool], Iterator[dict[str, Array]]]
"""Runs a graph on calibration data, on what is held out or on the rest: the values that are named, by sample."""


def _ignored(_name: str, _encoded: Encoded) -> None:
    """Keep nothing."""


@dataclass(frozen=True)
class Context:
    """What a pass may need beside the graph.

    ``grams`` holds, by weight name, the Gram matrix ``X'X / rows`` ``[in, in]`` of the inputs that the weight's
    linear layers saw on calibration data, ``moments`` the same in two parts, one to learn from and one to judge by,
    where there are two. ``encodings`` holds, by weight name, what the weight will be stored in, the narrowest where
    that is open; a weight that stays float has none. ``magnitudes`` tells, by the name of a value, how large its
    numbers are. ``takes`` tells whether a site, by its subject, is to be treated: a search leaves some out.
    ``became`` is told what weights are stored as. ``advice`` remembers what data recommends in place of a way of
    rounding, while weights and moments are the same. ``lookups`` tells, by weight name and by what tells it, how
    the rows of a table are looked up. ``halves`` tells, by the name of an op from before anything was encoded, why
    it cannot compute in half precision.
    ``tuned`` holds how what values will hold is to be corrected, by the subject of a `Tunable`.
    ``sample`` is an input on which the graph runs, where the pass `uses_sample`.
    ``chosen`` holds what weights are to be stored as, and why, by name, where that has been found in order.
    ``race`` tells the time of a prepared piece as a share of another's, on this machine, where anything may be timed.
    ``watch`` runs graphs on calibration data, where such was given; ``found`` keeps what a pass worked out by it, so
    that the same is asked once.
    ``largest`` holds, by weight name, the largest magnitude of each input ``[in]`` of the weight's layers. ``form`` is
    that in which the target multiplies integers, where it has one of its own.
    """

    progress: Callable[[str], None] = _silent
    grams: Mapping[str, np.ndarray] = field(default_factory=dict)
    moments: Mapping[str, Moments] = field(default_factory=dict)
    encodings: Mapping[str, Encoding] = field(default_factory=dict)
    magnitudes: Mapping[str, Magnitudes] = field(default_factory=dict)
    takes: Callable[[str], bool] = _every
    became: Callable[[str, Encoded], None] = _ignored
    advice: "MutableMapping[Hashable, tuple[Rounding, str]]" = field(default_factory=dict)
    lookups: Mapping[str, Mapping[str, Lookups]] = field(default_factory=dict)
    chosen: Mapping[str, tuple[Encoded, str]] = field(default_factory=dict)
    halves: Mapping[str, str] = field(default_factory=dict)
    tuned: Mapping[str, ChannelFit] = field(default_factory=dict)
    sample: Feeds = field(default_factory=dict)
    watch: Watch | None = None
    race: Callable[[Runner, Runner, Feeds], float] | None = None
    found: MutableMapping[Hashable, object] = field(default_factory=dict)
    largest: Mapping[str, np.ndarray] = field(default_factory=dict)
    form: Form | None = None

    def blocked(self, name: str) -> Blocked | None:
        """What a weight will be stored in, if that is codes by blocks."""
        found = self.encodings.get(name)
        return found if isinstance(found, Blocked) else None


class Pass(ABC):
    """A transformation of a graph.

    ``phase`` says when it runs, and ``keeps`` what it leaves as it is; what is fed and returned stays in any case.
    ``after`` names the passes that must have run before, where they run at all: the driver orders by it. ``uses_gram``
    says that `Context.grams` is needed, ``uses_sample`` and ``uses_largest`` the like, ``watches`` that `Context.watch`
    is wanted by one that rewrites. ``for_values`` says that it is about what is rounded of values: tokens that stay
    floats do not count in its statistics.
    """

    phase: ClassVar[Phase]
    keeps: ClassVar[frozenset[Invariant]]
    after: ClassVar[tuple[str, ...]] = ()
    uses_gram: ClassVar[bool] = False
    uses_sample: ClassVar[bool] = False
    uses_largest: ClassVar[bool] = False
    watches: ClassVar[bool] = False
    for_values: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """What a table of candidates calls it."""
        return type(self).__name__

    @property
    def order(self) -> tuple[object, ...]:
        """Where it stands among passes of its phase that do not care; each kind compares with its own."""
        return ()

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


class SitePass(Pass):
    """A pass that a rule asks for weight by weight, and that acts on sites.

    A family of them is a module that has one concrete class for each value of the rule property ``property``, which is
    called like the module: ``permute.py`` holds ``Magnitude`` for ``permute = magnitude``. A class called like the
    module itself is the value ``on``. The family treats each site that concerns a target, asks `Context.takes` before,
    and tells each site treated or refused in one `Edit` with the site's subject. What it does depends on the graph and
    the context alone. ``statement`` is where the language asks for it: a setting of the block ``depth`` goes by
    the name of the family, names layers, and has the value ``on`` alone. ``subjects`` names what rules ask it for
    that is no layer; its targets are those then.
    """

    property: ClassVar[str]
    statement: ClassVar[str] = "rule"
    keyword: ClassVar[str] = ""
    """The value of the property, where it is not the class's name."""
    subjects: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """Where the pass would act for these weights, and where it would but cannot; needs no data, changes nothing."""


class Rewrite(SitePass):
    """An exact pass. The weights keep their names, shapes, types and readers: the plan that encodes them is older.

    One that does not keep the function changes it in a way that it can tell (`meant`), and is held to that.
    """

    phase: ClassVar[Phase] = Phase.REWRITE
    keeps: ClassVar[frozenset[Invariant]] = EVERYTHING

    def meant(self, graph: G, targets: Sequence[str], context: Context) -> G:
        """A graph that computes what `apply` must make of it at the sites that the context takes, in another way."""
        return graph


class Restructure(SitePass):
    """A pass that makes a graph smaller: weights lose channels, or go.

    It changes the function in a way that it can tell: `meant` is a graph of the old shapes that computes what the new
    one must, so that what was done to shapes is validated exactly, whatever the loss. Rules are bound to its result.
    """

    phase: ClassVar[Phase] = Phase.STRUCTURE
    keeps: ClassVar[frozenset[Invariant]] = frozenset()
    asks: ClassVar[str] = ""
    """What layers that are named in ``depth`` are to do, in words."""

    opens: ClassVar[str] = ""
    """The option that says how much is done at most, and leaves to the allocator how much."""

    def is_open(self) -> bool:
        """What it does is for the allocator to decide, together with bits; until then it does nothing."""
        return bool(self.opens) and getattr(self, self.opens) > 0

    def uses_data(self) -> bool:
        """It fits something to calibration data, which has to be there (`Context.watch`)."""
        return False

    def meant(self, graph: G, targets: Sequence[str], context: Context) -> G:
        """A copy of the graph that computes what `apply` must make of it at the sites that the context takes."""
        copy = graph.copy()
        self.silence(copy, targets, context)
        return copy

    @abstractmethod
    def silence(self, graph: Graph, targets: Sequence[str], context: Context) -> None:
        """Let what `rewrite` removes contribute nothing, in place; called by `meant` alone."""


class Tuning(SitePass):
    """A pass that changes constants so that an encoded graph makes what the float one makes, as far as data shows.

    A site is tuned after those before it, on what they make by then. The driver finds the corrections on a graph that
    computes what the encoded one will, and hands them over in `Context.tuned`; only then is anything stored.
    """

    phase: ClassVar[Phase] = Phase.TUNE
    keeps: ClassVar[frozenset[Invariant]] = frozenset((Invariant.WEIGHTS, Invariant.SHAPES))
    after: ClassVar[tuple[str, ...]] = ("clean",)

    @abstractmethod
    def tunables(self, graph: Graph, targets: Sequence[str]) -> Sequence[Tunable]:
        """What may be tuned, in the order in which it runs."""

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The same, as sites."""
        return [Site(one.subject, one.layers, one.refused) for one in self.tunables(graph, targets)]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Put the corrections in."""
        edits = []
        for one in self.tunables(graph, targets):
            fit = context.tuned.get(one.subject)
            if one.refused:
                edits.append(Edit(one.subject, one.refused, refused=True, layers=one.layers))
            elif fit is not None and context.takes(one.subject):
                for (op, position), array in one.operands(fit).items():
                    graph.set_operand(op, position, array)
                changed = int(np.sum((fit.gain != 1) | (fit.shift != 0)))
                edits.append(Edit(one.subject, f"{changed} of {fit.gain.size} channels", layers=one.layers))
        return edits


@dataclass(frozen=True)
class Between:
    """Bounds of a numeric option, both included."""

    low: float
    high: float


@dataclass(frozen=True)
class InPercent(Between):
    """Bounds of an option that is spelled in percent; the pass gets a fraction."""

    high: float = 1.0
    unit: str = "%"


class Rounding(ABC):
    """A way to choose the codes of a weight: the values of the rule property ``rounding``."""

    property: ClassVar[str] = "rounding"
    uses_gram: ClassVar[bool] = False
    by_columns: ClassVar[bool] = False  # a matrix may lie in memory so; else it comes row by row

    def goes_in_order(self) -> bool:
        """Weights are rounded in the order in which the model reads them, each on what those before it became."""
        return False

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
