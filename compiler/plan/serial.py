"""A plan as JSON, and back."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qcc.compiler.plan.catalog import activations, passes, rewrites, roundings
from qcc.compiler.plan.costs import BITS, LATENCY, SIZE
from qcc.compiler.plan.decode import TAG, decode
from qcc.compiler.plan.formats import composed_encodings
from qcc.compiler.plan.plan import Allocate, Candidate, Kept, Kernels, Limit, OpenChoice, Plan, Step
from qcc.compiler.plan.terms import policy_of, terms_of
from qcc.compiler.plan.values import encoding_named
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, Floats
from qcc.ir.encoding.blocks import Block
from qcc.ir.encoding.grid import FloatGrid, IntGrid, TableGrid
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.integers import INTEGERS
from qcc.ir.graph.form import Form
from qcc.passes.contract.contract import SitePass
from qcc.passes.encode import Encode

VERSION = 1
LATER: Mapping[str, Mapping[str, Any]] = {
    "Step": {"value_sources": []},
    "Candidate": {"value_source": ""},
    "Kernels": {"target": "cpu"},
}
"""Fields that came later, by class: what they are where a plan lacks them."""
RENAMED: Mapping[str, Mapping[str, str]] = {"Kernels": {"targets": "names"}}
"""Fields that were called otherwise, by class."""


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
        parts = {key: _completed(part) for key, part in data.items() if key != "version"}
        plan: Plan = decode(parts, Plan, _types(), "plan")
        check(plan)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a plan: {error}") from error
    return replace(plan, steps=tuple(map(_of_today, plan.steps)))


def _completed(value: Any) -> Any:  # noqa: ANN401  (JSON)
    """JSON with the fields that plans were written without before."""
    if isinstance(value, list):
        return [_completed(one) for one in value]
    if not isinstance(value, dict):
        return value
    name = value.get(TAG)
    later, renamed = (of.get(name, {}) if isinstance(name, str) else {} for of in (LATER, RENAMED))
    return {**later, **{renamed.get(key, key): _completed(one) for key, one in value.items()}}


def _of_today(step: Step) -> Step:
    """A step as it is written now: the product of integers was once the form ``fused`` with rounded activations."""
    action = step.action
    if not isinstance(action, Encode) or action.activations is None or action.form != FUSED:
        return step
    return replace(step, action=replace(action, form=INTEGERS))


def check(plan: Plan) -> None:
    """See that the parts of a plan fit each other, and that it can be written as text.

    Raises:
        ValueError: they do not.
    """
    try:
        whole = terms_of(policy_of(plan.terms))
    except QccError as error:
        raise ValueError(f"its terms are no policy: {error.diagnostics[0].message}") from error
    if stray := [term for term in plan.terms if term not in whole]:
        raise ValueError(f"`{stray[0]}` is none of its terms")
    encoded = [name for step in plan.steps if isinstance(step.action, Encode) for name in step.weights]
    open_ = [option.subject for option in plan.allocate.options] if plan.allocate else []
    treated = [*encoded, *open_, *(one.weight for one in plan.kept)]
    if len(set(treated)) < len(treated):
        raise ValueError("a weight is named twice")
    for step in plan.steps:
        optional = len(step.encodings), len(step.value_sources)
        if len(step.sources) != len(step.weights) or not {*optional} <= {0, len(step.weights)}:
            raise ValueError("a step has as many sources as weights")
    actions = [step.action for step in plan.steps if isinstance(step.action, Encode)]
    options = plan.allocate.options if plan.allocate else ()
    candidates = [one for option in options for one in option.candidates]
    if any(one.action is not None and not isinstance(one.action, Encode) for one in candidates):
        raise ValueError("a candidate stores a weight, or leaves it")
    if any(not {SIZE, BITS} <= one.costs.keys() or min(one.costs.values()) < 0 for one in candidates):
        raise ValueError("a candidate has its size and bits")
    rows = [*(one.costs for one in candidates), plan.allocate.fixed if plan.allocate else {}]
    if unknown := [name for row in rows for name in row if name not in (SIZE, BITS, LATENCY)]:
        raise ValueError(f"nothing is called `{unknown[0]}` that a candidate could take")
    actions += [one.action for one in candidates if isinstance(one.action, Encode)]
    for encoding in (*(action.encoding for action in actions), *(one for step in plan.steps for one in step.encodings)):
        if encoding is not None and not _can_be(encoding):
            raise ValueError(f"there is no encoding `{encoding.text}`")
    if any(not option.candidates for option in options):
        raise ValueError("a weight has no candidate")


def _can_be(encoding: Encoding) -> bool:
    """A form could hold it, and the language can spell it."""
    return not encoding.undecodable and encoding_named(encoding.text) == encoding


def _types() -> dict[str, type]:
    stored = (Blocked, Floats, Block, IntGrid, FloatGrid, TableGrid, *composed_encodings())
    plain = (Plan, Kernels, Step, Kept, Allocate, Limit, OpenChoice, Candidate, *stored)
    families = (found for values in rewrites().values() for found in values.values())
    return {
        _type_name(found): found
        for found in (*plain, *passes().values(), *roundings().values(), *activations().values(), *families)
    }


def _type_name(found: type) -> str:
    """A class's name; families of passes may have a value in common."""
    return f"{found.property}.{found.__name__}" if issubclass(found, SitePass) else found.__name__


def _encode(value: Any) -> Any:  # noqa: ANN401  (JSON)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {one.name: _encode(getattr(value, one.name)) for one in dataclasses.fields(value)}
        return {"is": _type_name(type(value)), **parts}
    if isinstance(value, Form):
        return value.name
    if isinstance(value, dict):
        return {key: _encode(part) for key, part in value.items()}
    return [_encode(item) for item in value] if isinstance(value, tuple) else value
