"""A plan as stable text, which reads back as the same plan (`read_text`)."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from qcc.compiler.plan.catalog import keyword_of
from qcc.compiler.plan.plan import Allocate, OpenChoice, Plan, Step
from qcc.dsl.policy.policy import options_text
from qcc.dsl.syntax.literals import number_text
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.contract import Pass, Rounding, SitePass
from qcc.passes.encode import Encode

VERSION = 1
PLAIN = re.compile(r'[^\s"#][^\s"]*')
FLOAT = "float"
Row = Sequence[str]


def to_text(plan: Plan) -> str:
    """Stable text, one line a weight."""
    lines = [f"plan {VERSION}", *plan.terms]
    if plan.kernels is not None:
        words = (plan.kernels.target, *plan.kernels.names)
        lines.append(" ".join(["kernels", plan.kernels.activations, "for", *map(_word, words)]))
    for step in plan.steps:
        lines += [action_text(step.action), *_columns(_treated(step))]
    if plan.allocate is not None:
        lines += _allocate(plan.allocate)
    if plan.kept:
        lines += ["keep", *_columns((_word(kept.weight), _word(kept.reason)) for kept in plan.kept)]
    return "\n".join(lines) + "\n"


def action_text(action: Pass | Rounding | Activations) -> str:
    """A pass as it would be written: keyword and options."""
    if isinstance(action, Encode):
        how = "" if action.activations is None else f", activations = {action_text(action.activations)}"
        rounding = action_text(action.rounding)
        return f"{keyword_of(Encode)}({action.encoding.text}, rounding = {rounding}, form = {action.form}{how})"
    options = [f"{name} = {text}" for name, text in options_text(action).items()]  # type: ignore[arg-type]
    owner = f"{action.property} = " if isinstance(action, SitePass) else ""
    return owner + keyword_of(type(action)) + (f"({', '.join(options)})" if options else "")


def said_text(action: Activations) -> str:
    """The same without what goes without saying: options that are as their defaults are."""
    known: Any = action  # each is a dataclass
    usual = {one.name for one in fields(known) if one.default == getattr(known, one.name)}
    options = [f"{name} = {text}" for name, text in options_text(known).items() if name not in usual]
    return keyword_of(type(action)) + (f"({', '.join(options)})" if options else "")


def _treated(step: Step) -> Iterable[Row]:
    """The weights of a step, who asked, and what else the step knows of each."""
    stored = [f"stored {FLOAT if one is None else one.text}" for one in step.encodings]
    for at, (name, source, value) in enumerate(step.rows):
        more = [f"values {_word(value)}"] if step.value_sources else []
        more += stored[at : at + 1]
        yield _word(name), _word(source), *more


def _allocate(found: Allocate) -> Iterable[str]:
    yield f"allocate {_word(found.objective)}"
    for limit in found.limits:
        yield f"    limit {_word(limit.metric)} <= {number_text(limit.bound)}  {_word(limit.source)}"
    yield from (f"    fixed {text}" for text in _costs(found.fixed))
    yield from (f"    counted {' '.join(map(_word, (one.metric, *one.subjects)))}" for one in found.counted)
    for option in found.options:
        yield f"choose {_word(option.subject)}"
        yield from _columns(_candidates(option))


def _candidates(option: OpenChoice) -> Iterable[Row]:
    for one in option.candidates:
        values = [f"values {_word(one.value_source)}"] if one.value_source else []
        action = FLOAT if one.action is None else action_text(one.action)
        yield " ".join([_word(one.source), *values]), f"{' '.join(_costs(one.costs))}: {action}"


def _costs(costs: Mapping[str, float]) -> Iterable[str]:
    return (f"{_word(name)} {number_text(value)}" for name, value in costs.items())


def _columns(rows: Iterable[Row]) -> list[str]:
    listed = list(rows)
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    cells = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in listed)
    return [f"    {line.rstrip()}" for line in cells]


def _word(text: str) -> str:
    """A name or a place, in quotes if it is not plain."""
    if PLAIN.fullmatch(text) and text.isprintable():
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
