"""The Plan: the pivot between a policy and a graph.

An ordered list of steps, each a pass with its options, the weights that it treats, and the place in the policy that
asked for it. It prints as stable text, serialises, and running it needs no policy. A plan that still has an `Allocate`
is undecided; the allocator replaces that by `Encode` steps.
"""

from dataclasses import dataclass
from typing import Literal

from qcc.ir.encoding.algebra import Encoding
from qcc.passes.contract.contract import Pass
from qcc.passes.encode import Encode

PlanRow = tuple[str, str, str]
"""A weight, who asked for its encoding, and who for that of what its layers read."""


@dataclass(frozen=True)
class Candidate:
    """What a weight may become; no action means that it stays as it is.

    ``latency_ms`` is what its layers take for a sample, where the policy asks; ``value_source`` tells who asked for the
    encoding of what they read.
    """

    action: Encode | None
    source: str
    latency_ms: float = 0.0
    value_source: str = ""

    @property
    def text(self) -> str:
        """The format alone."""
        return "float" if self.action is None else self.action.encoding.text


@dataclass(frozen=True)
class OpenChoice:
    """A weight with its candidates."""

    weight: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Limit:
    """A budget row: the sum of a metric over the weights, and all that is fixed, stays within the bound."""

    metric: str
    bound: float
    source: str


@dataclass(frozen=True)
class Allocate:
    """A decision that is still open; ``fixed_ms`` is the latency of all that the options do not decide."""

    objective: str
    limits: tuple[Limit, ...]
    options: tuple[OpenChoice, ...]
    fixed_ms: float = 0.0


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
    """The kernels that go beside the model: the names of the processors they are made for, and how they compute."""

    targets: tuple[str, ...]
    activations: Literal["int8", "bf16", "exact"]

    @property
    def text(self) -> str:
        """As the language spells it."""
        return f"cpu({', '.join(self.targets)}), activations {self.activations}"


@dataclass(frozen=True)
class Plan:
    """What will be done, in order. ``limits`` hold for the written file, decided or not."""

    steps: tuple[Step, ...]
    kept: tuple[Kept, ...] = ()
    allocate: Allocate | None = None
    kernels: Kernels | None = None

    @property
    def decided(self) -> bool:
        """Nothing is left to choose."""
        return self.allocate is None
