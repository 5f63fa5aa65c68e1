"""The lock file: all that a compilation depended on, so that it can be repeated and audited."""

import hashlib
import json
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qcc.codegen.target.machine import cpu_name
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.files.check_outputs import OutputFiles
from qcc.compiler.files.inputs import Inputs
from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.files.shape import ShapeError, check_shape
from qcc.compiler.plan.plan import Plan, PlanFile
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.terms import policy_of, terms_of, untrimmed
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.data import coverage_json
from qcc.compiler.report.json import costs_json, verification_json
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.policy.policy import Policy
from qcc.dsl.policy.policy import to_text as policy_text
from qcc.ir.errors import first_line
from qcc.ir.model.model import Written
from qcc.ir.model.whole_files import sha256
from qcc.ir.plugins import plugins

FORMAT = 3
"""2 spelled plans as JSON, beside their text."""
PACKAGES = ("qcc", "numpy", "onnx", "onnx_ir", "onnxruntime", "scipy")
SHAPE: dict[str, Any] = {
    "model": {"file": str, "sha256": str, "data": {str: str}, "bytes": int},
    "policy": {"sources": {str: str}, "sha256": str, "params": {str: (str, None)}},
    "calibration": {"origin": str, "sha256": str, "samples": int, "seed": int},
    "versions": {str: str},
    "processor": str,
    "output": {"file": str, "sha256": str, "data": (str, None), "data_sha256": (str, None), "bytes": int},
    "kernels": ({"file": str, "sha256": str, "bytes": int, "ops": [str]}, None),
    "rewrites": [{"pass": str, "treated": int, "refused": int, "relative_error": float, "bound": float}],
    "plan_sha256": str,
    "plan": [str],
}
"""What a lock holds, beside what is told for people alone."""
NO_PACKAGE = "none"
HELP = "give the .lock file that `qcc compile` wrote beside a model, as it wrote it"


def text_sha256(text: str) -> str:
    """A text's digest."""
    return hashlib.sha256(text.encode()).hexdigest()


def policy_sha256(policy: Policy) -> str:
    """A policy's digest; it does not depend on how the path to its data is spelled, nor on what is trimmed at last."""
    if policy.digest:
        return policy.digest
    policy = untrimmed(policy)
    calibrate = policy.calibrate
    if calibrate is not None:
        policy = replace(policy, calibrate=calibrate.moved(lambda path: Path(path).name))
    return text_sha256(policy_text(policy))


def provenance(model: Path, policy: Policy, plan: Plan) -> dict[str, str]:
    """What the written model says of its origin, in ``metadata_props``."""
    kernels = {"qcc.kernels": plan.kernels.text} if plan.kernels else {}
    return kernels | {
        "qcc.version": version("qcc"),
        "qcc.model": model.name,
        "qcc.policy.sha256": policy_sha256(policy),
        "qcc.plan.sha256": text_sha256(to_text(_untrimmed(policy, plan))),
    }


def _untrimmed(policy: Policy, plan: Plan) -> Plan:
    """The plan of the whole model: what is left of it is no part of what was planned."""
    if getattr(policy.export, "trim", None) is None:
        return plan
    return replace(plan, terms=terms_of(untrimmed(policy_of(plan.terms))))


def versions(plan: Plan) -> dict[str, str]:
    """The versions of the packages that matter to a plan; `NO_PACKAGE` for one that is not installed."""
    made_by = plan.kernels.of.packages if plan.kernels is not None else ()
    others = {one.package: one.version for one in plugins()}
    return {name: _version(name) for name in (*PACKAGES, *made_by)} | others


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return NO_PACKAGE


def lock_text(result: Result, policy: Policy, data: Samples, inputs: Inputs, staged: Path, written: Written) -> str:
    """The lock file of a result whose model lies at ``staged``."""
    calibrate = policy.calibrate
    content = {
        "format": FORMAT,
        "model": {
            "file": result.source.name,
            "sha256": inputs.model.sha256,
            "data": {file.name: file.sha256 for file in inputs.data},
            "bytes": result.input_bytes,
        },
        "policy": {
            "sources": {Path(source.name).name: text_sha256(source.text) for source in policy.sources},
            "sha256": policy_sha256(policy),
            "params": dict(policy.params),
        },
        "calibration": {
            "origin": Path(data.origin).name,
            "sha256": data.digest,
            "samples": data.count,
            "seed": calibrate.seed if calibrate else 0,
        }
        | _interactions(inputs),
        "coverage": coverage_json(result.layers),
        "loop": None if result.loop is None else dict(result.loop.facts),
        "costs": costs_json(result.costs),
        "versions": versions(result.plan),
        "processor": cpu_name(),
        "output": {
            "file": result.output.name,
            "sha256": sha256(staged),
            "data": result.data.name if result.data else None,
            "data_sha256": written.data_sha256,
            "bytes": result.output_bytes,
        },
        "kernels": _kernels(result, staged),
        "cache": None if result.cache is None else sha256(OutputFiles.of(staged).cache),
        "verification": verification_json(replace(result.verification, origin=Path(data.origin).name)),
        "rewrites": [
            {
                "pass": row.action,
                "treated": len(row.treated),
                "refused": len(row.refused),
                "relative_error": row.error,
                "bound": row.bound,
            }
            for row in result.rewrites
        ],
        "plan_sha256": text_sha256(to_text(result.plan)),
        "plan": to_text(result.plan).split("\n"),
    }
    return json.dumps(content, indent=1) + "\n"


def _interactions(inputs: Inputs) -> dict[str, object]:
    """The files that formats go by, where they do."""
    found = {file.path.name: file.sha256 for file in inputs.interactions}
    return {"interactions": found} if found else {}


def _kernels(result: Result, staged: Path) -> dict[str, object] | None:
    """The library beside the model, and the ops that it serves."""
    if result.kernels is None:
        return None
    library = kernels_beside(staged)
    return {
        "file": result.kernels.name,
        "sha256": sha256(library),
        "bytes": library.stat().st_size,
        "ops": list(result.ops),
    }


@dataclass(frozen=True)
class Lock(PlanFile):
    """A lock file that was read: its plan, and what the plan was made of.

    ``model``, ``data`` and ``interactions`` are digests, the last two by the names of files; ``file`` is the model's
    name.
    """

    model: str
    data: dict[str, str]
    policy: str
    calibration: str
    interactions: dict[str, str]
    versions: dict[str, str]
    processor: str
    file: str = ""


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        QccError: it cannot be read, or it is not as a compilation wrote it.
    """
    text = _read(path)
    try:
        return _lock(path, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise _refused(f"`{path}` is not a lock file of this qcc: {first_line(error)}") from error


def read_plan(path: Path) -> PlanFile:
    """Read a plan from a file: a lock, or the text of a plan as `--emit plan` prints it.

    Raises:
        QccError: it cannot be read, or it is neither.
    """
    text = _read(path)
    if text.lstrip().startswith(("{", "[")):
        return read_lock(path)
    return PlanFile(path, from_text(Source(str(path), text.removeprefix("\ufeff"), path)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise _refused(f"cannot read `{path}`: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # a NUL in the path, or no text
        raise _refused(f"`{path}` is not a lock file of this qcc: {first_line(error)}") from error


def plan_of(path: Path) -> Plan:
    """The plan that a lock file holds.

    Raises:
        QccError: see `read_lock`.
    """
    return read_lock(path).plan


def _lock(path: Path, content: Any) -> Lock:  # noqa: ANN401  (JSON)
    check_shape(content, {"format": int}, "lock")
    if content["format"] != FORMAT:
        raise ShapeError(f"its format is {content['format']}, and not {FORMAT}: compile the model anew")
    check_shape(content, SHAPE, "lock")
    check_shape(content["calibration"].get("interactions", {}), {str: str}, "lock.calibration.interactions")
    text = "\n".join(content["plan"])
    if text_sha256(text) != content["plan_sha256"]:
        raise ShapeError("its plan was changed: it does not have the hash that the lock tells")
    return Lock(
        path,
        _plan(text),
        content["model"]["sha256"],
        content["model"]["data"],
        content["policy"]["sha256"],
        content["calibration"]["sha256"],
        content["calibration"].get("interactions", {}),
        content["versions"],
        content["processor"],
        content["model"]["file"],
    )


def _plan(text: str) -> Plan:
    try:
        return from_text(Source("plan", text))
    except QccError as error:
        wrong = error.diagnostics[0]
        place = f"line {wrong.span.location.partition(':')[2]} of its plan: " if wrong.span else ""
        raise ShapeError(f"{place}{wrong.message}") from error


def _refused(message: str) -> QccError:
    return QccError([Diagnostic("Q431", message, help=HELP)])
