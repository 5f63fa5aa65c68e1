"""What differs between two builds, as their lock files tell it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcc.compiler.plan.plan import Plan
from qcc.compiler.plan.text import action_text
from qcc.compiler.report.lock import read_lock
from qcc.passes.encode import Encode

KEPT = "kept"
ABSENT = "-"
MADE_OF = ("model", "policy", "calibration", "versions", "processor")
"""The parts of a lock that say what a build was made of."""


@dataclass(frozen=True)
class BuildDifference:
    """Something that two builds have otherwise."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class BuildComparison:
    """Two builds.

    Args:
        before, after: their lock files.
        sizes: of their models, in bytes.
        made_of: what they were made of otherwise.
        outcome: measures of the written files, equal ones too, with their change in words.
        layers: weights that are stored otherwise.
        same: how many are stored alike.
        identical: the models are the same, byte for byte.
    """

    before: Path
    after: Path
    sizes: tuple[int, int]
    made_of: tuple[BuildDifference, ...]
    outcome: tuple[BuildDifference, ...]
    layers: tuple[BuildDifference, ...]
    same: int
    identical: bool


def compare_builds(before: Path, after: Path) -> BuildComparison:
    """Compare two lock files.

    Raises:
        QccError: one of them is none.
    """
    plans = read_lock(before).plan, read_lock(after).plan
    facts = _facts(before), _facts(after)
    stored = _stored(plans[0]), _stored(plans[1])
    names = list(dict.fromkeys([*stored[0], *stored[1]]))
    layers = [BuildDifference(name, stored[0].get(name, ABSENT), stored[1].get(name, ABSENT)) for name in names]
    differing = tuple(one for one in layers if one.before != one.after)
    sizes = facts[0]["output"]["bytes"], facts[1]["output"]["bytes"]
    made_of = tuple(_differing(facts[0], facts[1]))
    outcome, same = tuple(_outcome(*facts)), len(layers) - len(differing)
    files = [(one["output"]["sha256"], one["output"]["data_sha256"]) for one in facts]
    return BuildComparison(before, after, sizes, made_of, outcome, differing, same, files[0] == files[1])


def as_json(found: BuildComparison) -> dict[str, Any]:
    """The comparison as plain data."""
    parts = {"made_of": found.made_of, "outcome": found.outcome, "layers": found.layers}
    return {
        "before": str(found.before),
        "after": str(found.after),
        "bytes": list(found.sizes),
        **{part: [vars(one) for one in listed] for part, listed in parts.items()},
        "same_layers": found.same,
        "identical": found.identical,
    }


def _facts(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _stored(plan: Plan) -> dict[str, str]:
    """How each weight is stored."""
    found = {one.weight: KEPT for one in plan.kept}
    for step in plan.steps:
        if isinstance(step.action, Encode):
            text = action_text(step.action).removeprefix("encode(").removesuffix(")")
            found |= dict.fromkeys(step.weights, text)
    return found


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[BuildDifference]:
    for part in MADE_OF:
        left, right = dict(_leaves(part, before[part])), dict(_leaves(part, after[part]))
        for name in dict.fromkeys([*left, *right]):
            if left.get(name) != right.get(name):
                yield BuildDifference(name, left.get(name, ABSENT), right.get(name, ABSENT))


def _leaves(name: str, value: object) -> Iterator[tuple[str, str]]:
    """The values of an object, each under its path; digests by their beginning."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _leaves(f"{name} {key}", one)
        return
    text = str(value)
    yield name, f"{text[:12]}..." if len(text) == 64 and text.isalnum() else text


def _outcome(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[BuildDifference]:
    left, right = (_measures(one.get("verification")) for one in (before, after))
    for name in dict.fromkeys([*left, *right]):
        yield BuildDifference(name, left.get(name, ABSENT), right.get(name, ABSENT))


def _measures(verification: object) -> dict[str, str]:
    """What a lock tells people of the outputs; nothing of it is trusted to have a shape."""
    found: dict[str, str] = {}
    outputs = verification.get("outputs") if isinstance(verification, dict) else None
    for one in outputs if isinstance(outputs, list) else ():
        if isinstance(one, dict):
            name = str(one.get("output", ""))
            numbers = {key: one.get(key) for key in ("cosine", "sqnr", "relative_error")}
            found |= {
                f"{name} {key}": f"{value:.6g}" for key, value in numbers.items() if isinstance(value, float | int)
            }
    return found
