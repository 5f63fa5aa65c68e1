"""The Plan: the pivot between a policy and a graph.

An ordered list of steps, each a pass with its options, the weights that it treats, and the place in the policy that
asked for it. It prints as stable text, serialises, and running it needs no policy. A plan that still has an `Allocate`
is undecided; the allocator replaces that by `Encode` steps.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

from qcc.codegen.target.errors import TargetError
from qcc.codegen.target.find import targets
from qcc.codegen.target.target import AnyTarget, Arithmetic, Processor
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.graph.costs import Costs
from qcc.passes.contract.contract import Pass
from qcc.passes.contract.subject import SubjectPass
from qcc.passes.half.half import Half

PlanRow = tuple[str, str, str]
"""A weight, who asked for its encoding, and who for that of what its layers read."""


@dataclass(frozen=True)
class Candidate:
    """What may be done to a subject; no action means that it stays as it is.

    ``costs`` are the rows that the allocator sees of it: what it takes of each of ``size``, ``bits`` and ``latency``,
    as far as the policy asks (`costs`). What it does to the outputs is measured when all else is known to be feasible.
    ``value_source`` tells who asked for the encoding of what the layers read, if that is encoded.
    """

    action: Pass | None
    source: str
    costs: dict[str, float] = field(default_factory=dict, hash=False)
    value_source: str = ""

    def row(self, subject: str) -> PlanRow:
        """The row of a subject that becomes it."""
        return subject, self.source, self.value_source

    @property
    def text(self) -> str:
        """What a table calls it."""
        return "float" if self.action is None else self.action.label


@dataclass(frozen=True)
class OpenChoice:
    """A subject, such as a weight by its name, with its candidates."""

    subject: str
    candidates: tuple[Candidate, ...]

    @property
    def stores_weight(self) -> bool:
        """It is about a weight, and not about what is no layer, such as a cache."""
        return not any(isinstance(one.action, SubjectPass) for one in self.candidates)


@dataclass(frozen=True)
class Limit:
    """A budget row: the sum of a metric over the weights, and all that is fixed, stays within the bound."""

    metric: str
    bound: float
    source: str


@dataclass(frozen=True)
class Counted:
    """A metric in which the losses of some subjects are summed, and no others'."""

    metric: str
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class Allocate:
    """A decision that is still open; ``fixed`` is what all that the options do not decide takes of each row.

    ``counted`` says what counts in which metric, where several decide.
    """

    objective: str
    limits: tuple[Limit, ...]
    options: tuple[OpenChoice, ...]
    fixed: dict[str, float] = field(default_factory=dict, hash=False)
    counted: tuple[Counted, ...] = ()


@dataclass(frozen=True)
class Step:
    """A pass over some weights; ``sources`` says, weight by weight, who asked.

    A rewriting step knows in ``encodings`` what each of its weights will be stored in, None for float: decided or not,
    the plan makes the same graph. Of a step that encodes what the layers read as well, ``value_sources`` says who asked
    for that.
    """

    action: Pass
    weights: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    encodings: tuple[Encoding | None, ...] = ()
    value_sources: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[PlanRow, ...]:
        """Each weight with who asked for its encoding, and for that of what its layers read."""
        values = self.value_sources or ("",) * len(self.weights)
        return tuple(zip(self.weights, self.sources, values, strict=True))


@dataclass(frozen=True)
class Kept:
    """A weight that stays as it is, and why."""

    weight: str
    reason: str


@dataclass(frozen=True)
class Kernels:
    """The kernels that go beside the model.

    Args:
        target: that they are made for, by its name.
        names: of the processors, the best first.
        activations: how kernels round what they multiply.

    Raises:
        ValueError: there is no such target with kernels, or no such processor of it.
    """

    target: str
    names: tuple[str, ...]
    activations: Arithmetic

    def __post_init__(self) -> None:
        if self.target not in targets() or not self.of.templates or not self.names:
            raise ValueError(f"there are no kernels for `{self.target}({', '.join(self.names)})`")
        try:
            self.of.check(self.processors)
        except TargetError as error:
            raise ValueError(str(error)) from error

    @property
    def of(self) -> AnyTarget:
        """The target."""
        return targets()[self.target]

    @property
    def processors(self) -> tuple[Processor, ...]:
        """Those that the names are of."""
        return self.of.named(self.names)

    @property
    def costs(self) -> Costs:
        """What forms were measured to cost on them."""
        return self.of.costs(self.names, self.activations)

    @property
    def text(self) -> str:
        """As the language spells it."""
        return f"{self.target}({', '.join(self.names)}), activations {self.activations}"


@dataclass(frozen=True)
class Plan:
    """What will be done, in order. ``limits`` hold for the written file, decided or not.

    ``terms`` are the statements of the policy about target, data, verification and export, so that it runs without it.
    """

    steps: tuple[Step, ...]
    kept: tuple[Kept, ...] = ()
    allocate: Allocate | None = None
    kernels: Kernels | None = None
    terms: tuple[str, ...] = ()

    @property
    def most_bytes(self) -> float:
        """What the written file may take at most."""
        limits = self.allocate.limits if self.allocate else ()
        return min((one.bound for one in limits if one.metric == "size"), default=math.inf)

    @property
    def half(self) -> Half | None:
        """The step that computes in half precision, if there is one."""
        return next((step.action for step in self.steps if isinstance(step.action, Half)), None)

    @property
    def changes(self) -> bool:
        """It changes more than how weights are stored, or may, so that the size of the file is no measure."""
        open_ = self.allocate.options if self.allocate else ()
        done = any(isinstance(step.action, Half | SubjectPass) for step in self.steps)
        return done or not all(option.stores_weight for option in open_)

    @property
    def decided(self) -> bool:
        """Nothing is left to choose."""
        return self.allocate is None


def weight_options(plan: Plan) -> tuple[OpenChoice, ...]:
    """What is open of a plan that is about weights."""
    return tuple(one for one in (plan.allocate.options if plan.allocate else ()) if one.stores_weight)


@dataclass(frozen=True)
class PlanFile:
    """A plan that was read from a file, beside which its data lies."""

    path: Path
    plan: Plan
