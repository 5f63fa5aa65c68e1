"""What a plan keeps of its policy beside what is done to weights: target, data, adapters, verification and export."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath

from qcc.compiler.plan.catalog import Export, schema
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import Policy, to_text

HEAD, DROPPED = "qpolicy 1", "minimize "
NAME = "<plan>"


def terms_of(policy: Policy) -> tuple[str, ...]:
    """The statements of a policy that hold whatever is done to weights, one a line.

    A path of data has no folder: how it was spelled must not change what is written.
    """
    calibrate = policy.calibrate
    if calibrate is not None:
        calibrate = calibrate.moved(lambda path: PurePath(path).name)
    bare = replace(policy, rules=(), depth=(), floats=None, budget=(), metrics=(), params={}, calibrate=calibrate)
    lines = to_text(bare).removesuffix("\n").split("\n")  # a path may hold what else ends a line
    return tuple(line for line in lines if line != HEAD and not line.startswith(DROPPED))


def untrimmed(policy: Policy) -> Policy:
    """The same policy for the whole model, of which nothing is left out at last."""
    return replace(policy, export=replace(policy.export, trim=None)) if isinstance(policy.export, Export) else policy


def policy_of(
    terms: tuple[str, ...], folder: Path | None = None, definitions: Mapping[str, str] | None = None, digest: str = ""
) -> Policy:
    """The policy that says the terms of a plan, and has no rules.

    Args:
        terms: of the plan.
        folder: in which the data lies.
        definitions: values of parameters, of which there are none.
        digest: of the policy that the plan was made of.

    Raises:
        QccError: they are no terms.
    """
    text = "\n".join([HEAD, *terms, ""])
    policy = load_text(text, schema(), NAME, definitions=definitions, report=Diagnostics())
    calibrate = policy.calibrate
    if folder is not None and calibrate is not None:
        calibrate = calibrate.moved(lambda path: str(folder / path))
    adapters = policy.adapters
    if folder is not None:
        adapters = tuple(replace(one, path=str(folder / one.name)) for one in adapters)
    sampler = policy.sampler
    if folder is not None and sampler is not None:
        sampler = replace(sampler, path=str(folder / sampler.name))
    return replace(policy, calibrate=calibrate, adapters=adapters, sampler=sampler, digest=digest)
