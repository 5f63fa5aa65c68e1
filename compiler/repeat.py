"""Running a plan that was made before: that it is for this model, and what else is not as it was."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from qcc.codegen.target.machine import cpu_name
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.files.inputs import Inputs
from qcc.compiler.plan.activations import saturating
from qcc.compiler.plan.bind import BEFORE
from qcc.compiler.plan.cascade import other_subjects
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.plan import Plan, PlanFile, Step
from qcc.compiler.plan.terms import policy_of
from qcc.compiler.report.lock import NO_PACKAGE, Lock, versions
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.load import load_policy
from qcc.dsl.policy.policy import Policy
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.model.whole_files import sha256
from qcc.passes.encode import Encode

DEFAULT_POLICY = "balanced"
HELP = "a plan fits the model that it was made for"


def loaded_policy(
    policy: str | Path | Policy | None, plan: Plan | PlanFile | None, definitions: Mapping[str, str] | None
) -> Policy:
    """The policy that is given, or else what a plan keeps of its own, or else the default one.

    Raises:
        QccError: there is none, or it is wrong.
    """
    if isinstance(policy, Policy):
        return policy
    if policy is None and isinstance(plan, PlanFile):
        digest = plan.policy if isinstance(plan, Lock) else ""
        return policy_of(plan.plan.terms, plan.path.parent, definitions, digest)
    if policy is None and isinstance(plan, Plan):
        return policy_of(plan.terms, None, definitions)
    return load_policy(DEFAULT_POLICY if policy is None else policy, schema(), definitions)


def folder_of(plan: Plan | PlanFile | None, policy: Policy) -> Path:
    """In which the files lie that formats name: the one of the plan's file, or of the policy's."""
    return plan.path.parent if isinstance(plan, PlanFile) else policy.folder


def check_plan(plan: Plan, graph: Graph, model: Path) -> None:
    """See that a plan speaks of the weights of a model, and of all of them, and is right on every processor.

    Raises:
        ModelError: it does not, or what it asks for is wrong on some processors.
    """
    own = {weight.name for weight in graph.weights()}
    check_targets([step for step in plan.steps if step.action.phase not in BEFORE], graph, model)
    decided = {name for step in plan.steps if isinstance(step.action, Encode) for name in step.weights}
    open_ = plan.allocate.options if plan.allocate else ()
    decided |= {option.subject for option in open_ if option.stores_weight}
    decided |= {one.weight for one in plan.kept}
    _check_names(decided, graph, model)
    if missing := sorted(own - decided):
        message = f"the plan is for another model, or was cut: it says nothing of `{missing[0]}` of `{model}`"
        raise ModelError("Q431", message, help=HELP)
    if wrong := saturating(plan):
        message = (
            f"the plan multiplies `{wrong[0]}` by 8 bits in the runtime, which saturates on processors without VNNI"
        )
        raise ModelError(
            "Q504", message, help="compile the policy again, or name processors that have it as its target"
        )


def check_targets(steps: Sequence[Step], graph: Graph, model: Path) -> None:
    """See that steps of a plan treat weights of a model.

    Raises:
        ModelError: one does not.
    """
    layered = [step for step in steps if not _subjects(step)]
    _check_names((name for step in layered for name in step.weights), graph, model)
    for step in (step for step in steps if step not in layered):
        known = {name for subject in _subjects(step) for name in other_subjects(graph, subject)}
        if missing := sorted(set(step.weights) - known):
            message = f"the plan is for another model: `{model}` has no {_subjects(step)[0]} `{missing[0]}`"
            raise ModelError("Q431", message, help=HELP)


def _subjects(step: Step) -> tuple[str, ...]:
    """What a step treats that is no layer."""
    return getattr(step.action, "subjects", ())


def _check_names(names: Iterable[str], graph: Graph, model: Path) -> None:
    if missing := sorted(set(names) - {weight.name for weight in graph.weights()}):
        raise ModelError("Q431", f"the plan is for another model: `{model}` has no weight `{missing[0]}`", help=HELP)


def _digest(path: Path) -> str:
    """Of a file; empty if there is none."""
    try:
        return sha256(path)
    except (OSError, ValueError):
        return ""


def tell_differences(lock: Lock, inputs: Inputs, data: Samples, diagnostics: Diagnostics) -> None:
    """Warn where what a lock was made of differs from what there is now."""
    found = []
    if lock.model != inputs.model.sha256:
        found.append("the model")
    if lock.data != {file.name: file.sha256 for file in inputs.data}:
        found.append("the files that the model and its adapters lie in")
    if lock.calibration != data.digest:
        found.append("the calibration data")
    if changed := [name for name, digest in lock.interactions.items() if _digest(lock.path.with_name(name)) != digest]:
        found.append(f"the interactions `{changed[0]}`")
    now = versions(lock.plan)
    changed = [name for name, text in now.items() if lock.versions.get(name) != text]
    found += [f"{name} {now[name]} (was {lock.versions.get(name, NO_PACKAGE)})" for name in changed]
    if lock.processor != cpu_name():
        found.append(f"the processor {cpu_name()} (was {lock.processor})")
    if found:
        message = f"`{lock.path}` was made of other things: {', '.join(found)} differ"
        diagnostics.warning("Q452", message, help="the result can differ from what the lock describes")
