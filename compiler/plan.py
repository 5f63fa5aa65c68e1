"""The Plan: the pivot between a policy and a graph.

An ordered list of steps, each a pass with its options, the weights that it treats, and the place in the policy that
asked for it. It prints as stable text, serialises, and running it needs no policy. A plan that still has an `Allocate`
is undecided; the allocator replaces that by `Encode` steps.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from qcc.compiler.catalog import activations, keyword_of, passes, rewrites, roundings
from qcc.compiler.decode import decode
from qcc.dsl.policy import options_text
from qcc.ir.blocks import Block
from qcc.ir.encoding import FLOAT_ENCODINGS, MAX_BITS, MIN_BITS, Encoding, FloatGrid, IntGrid
from qcc.passes.contract import Activations, Pass, Rewrite, Rounding
from qcc.passes.encode import Encode

VERSION = 1


@dataclass(frozen=True)
class Candidate:
    """What a weight may become; no action means that it stays as it is.

    ``latency_ms`` is what its layers take for a sample, where the policy asks.
    """

    action: Encode | None
    source: str
    latency_ms: float = 0.0

    @property
    def text(self) -> str:
        """The format alone."""
        return "float" if self.action is None else self.action.encoding.text


@dataclass(frozen=True)
class Option:
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
    options: tuple[Option, ...]
    fixed_ms: float = 0.0


@dataclass(frozen=True)
class Step:
    """A pass over some weights; ``sources`` says, weight by weight, who asked.

    A rewriting step knows in ``encodings`` what each of its weights will be stored in, None for float: decided or not,
    the plan makes the same graph.
    """

    action: Pass
    weights: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    encodings: tuple[Encoding | None, ...] = ()


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


def to_text(plan: Plan) -> str:
    """Stable text, one line a weight."""
    lines = [f"plan {VERSION}"] + ([f"kernels {plan.kernels.text}"] if plan.kernels else [])
    for step in plan.steps:
        lines.append(action_text(step.action))
        lines += _columns(zip(step.weights, step.sources, strict=True))
    if plan.allocate is not None:
        bounds = "".join(f", {limit.metric} <= {limit.bound:.10g}" for limit in plan.allocate.limits)
        lines.append(f"allocate minimize {plan.allocate.objective}{bounds}")
        lines += _columns(
            (option.weight, " | ".join(one.text for one in option.candidates)) for option in plan.allocate.options
        )
    if plan.kept:
        lines.append("keep")
        lines += _columns((kept.weight, kept.reason) for kept in plan.kept)
    return "\n".join(lines) + "\n"


def action_text(action: Pass | Rounding | Activations) -> str:
    """A pass as it would be written: keyword and options."""
    if isinstance(action, Encode):
        inputs = "" if action.activations is None else f", activations {action_text(action.activations)}"
        return f"encode {action.encoding.text}, rounding {action_text(action.rounding)}{inputs}, {action.form}"
    options = [f"{name} = {text}" for name, text in options_text(action).items()]  # type: ignore[arg-type]
    owner = f"{action.property} = " if isinstance(action, Rewrite) else ""
    return owner + keyword_of(type(action)) + (f"({', '.join(options)})" if options else "")


def to_json(plan: Plan) -> str:
    """The plan as JSON."""
    return json.dumps({"version": VERSION, **_encode(plan)}, indent=1)


def from_json(text: str) -> Plan:
    """Read a plan back.

    Raises:
        ValueError: the text is not a plan of this version.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a plan: {error}") from error
    return from_data(data)


def from_data(data: object) -> Plan:
    """The plan that JSON holds.

    Raises:
        ValueError: it is not a plan of this version, or not one that can be run.
    """
    try:
        if not isinstance(data, dict) or type(data.get("version")) is not int or data["version"] != VERSION:
            raise ValueError(f"its version is not {VERSION}")
        plan: Plan = decode({key: part for key, part in data.items() if key != "version"}, Plan, _types(), "plan")
        _check(plan)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a plan: {error}") from error
    return plan


def _check(plan: Plan) -> None:
    """See that the parts of a plan fit each other."""
    encoded = [name for step in plan.steps if isinstance(step.action, Encode) for name in step.weights]
    open_ = [option.weight for option in plan.allocate.options] if plan.allocate else []
    treated = [*encoded, *open_, *(one.weight for one in plan.kept)]
    if len(set(treated)) < len(treated):
        raise ValueError("a weight is named twice")
    for step in plan.steps:
        if len(step.sources) != len(step.weights) or len(step.encodings) not in (0, len(step.weights)):
            raise ValueError("a step has as many sources as weights")
    actions = [step.action for step in plan.steps if isinstance(step.action, Encode)]
    options = plan.allocate.options if plan.allocate else ()
    actions += [one.action for option in options for one in option.candidates if one.action is not None]
    for encoding in (*(action.encoding for action in actions), *(one for step in plan.steps for one in step.encodings)):
        if encoding is not None and not _can_be(encoding):
            raise ValueError(f"there is no encoding `{encoding.text}`")
    if any(not option.candidates for option in options):
        raise ValueError("a weight has no candidate")


def _can_be(encoding: Encoding) -> bool:
    grid, block = encoding.grid, encoding.block
    if isinstance(grid, IntGrid):
        return MIN_BITS <= grid.bits <= MAX_BITS and encoding.scale is not None and min(block.rows, block.columns) >= 0
    return encoding in FLOAT_ENCODINGS.values()


def _columns(pairs: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(pairs)
    width = max((len(left) for left, _ in rows), default=0)
    return [f"    {left:<{width}}  {right}".rstrip() for left, right in rows]


def _types() -> dict[str, type]:
    plain = (Plan, Kernels, Step, Kept, Allocate, Limit, Option, Candidate, Encoding, IntGrid, FloatGrid, Block)
    families = (found for values in rewrites().values() for found in values.values())
    return {
        _type_name(found): found
        for found in (*plain, *passes().values(), *roundings().values(), *activations().values(), *families)
    }


def _type_name(found: type) -> str:
    """A class's name; families of passes may have a value in common."""
    return f"{found.property}.{found.__name__}" if issubclass(found, Rewrite) else found.__name__


def _encode(value: Any) -> Any:  # noqa: ANN401  (JSON)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {one.name: _encode(getattr(value, one.name)) for one in dataclasses.fields(value)}
        return {"is": _type_name(type(value)), **parts}
    return [_encode(item) for item in value] if isinstance(value, tuple) else value
