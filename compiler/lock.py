"""The lock file: all that a compilation depended on, so that it can be repeated and audited."""

import hashlib
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from qcc.compiler import plan as plans
from qcc.compiler.inputs import Inputs
from qcc.compiler.kernel_library import kernels_beside
from qcc.compiler.plan import Plan
from qcc.compiler.result import Result
from qcc.compiler.samples import Samples
from qcc.dsl.policy import Policy
from qcc.dsl.policy import to_text as policy_text
from qcc.ir.onnx_kernel_ops import kernel_ops
from qcc.ir.onnx_save import Written
from qcc.ir.whole_files import sha256

FORMAT = 1
PACKAGES = ("qcc", "numpy", "onnx", "onnx_ir", "onnxruntime", "scipy")


def text_sha256(text: str) -> str:
    """A text's digest."""
    return hashlib.sha256(text.encode()).hexdigest()


def policy_sha256(policy: Policy) -> str:
    """A policy's digest, which does not depend on how the path to its data is spelled."""
    calibrate = policy.calibrate
    if calibrate is not None and calibrate.path is not None:
        policy = replace(policy, calibrate=replace(calibrate, path=Path(calibrate.path).name))
    return text_sha256(policy_text(policy))


def provenance(model: Path, policy: Policy, plan: Plan) -> dict[str, str]:
    """What the written model says of its origin, in ``metadata_props``."""
    kernels = {"qcc.kernels": plan.kernels.text} if plan.kernels else {}
    return kernels | {
        "qcc.version": version("qcc"),
        "qcc.model": model.name,
        "qcc.policy.sha256": policy_sha256(policy),
        "qcc.plan.sha256": text_sha256(plans.to_json(plan)),
    }


def lock_text(result: Result, policy: Policy, data: Samples, inputs: Inputs, staged: Path, written: Written) -> str:
    """The lock file of a result whose model lies at ``staged``."""
    calibrate = policy.calibrate
    content = {
        "format": FORMAT,
        "model": {"file": result.model.name, "sha256": inputs.model.sha256, "bytes": result.input_bytes},
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
        },
        "versions": {name: version(name) for name in PACKAGES},
        "output": {
            "file": result.output.name,
            "sha256": sha256(staged),
            "data": result.data.name if result.data else None,
            "data_sha256": written.data_sha256,
            "bytes": result.output_bytes,
        },
        "kernels": _kernels(result, staged),
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
        "plan": json.loads(plans.to_json(result.plan)),
    }
    return json.dumps(content, indent=1) + "\n"


def _kernels(result: Result, staged: Path) -> dict[str, object] | None:
    """The library beside the model, and the ops that it serves."""
    if result.kernels is None:
        return None
    library = kernels_beside(staged)
    return {
        "file": result.kernels.name,
        "sha256": sha256(library),
        "bytes": library.stat().st_size,
        "tvm": version("apache-tvm"),
        "ops": sorted(op.name for op in kernel_ops(staged)),
    }


def plan_of(path: Path) -> Plan:
    """The plan that a lock file holds.

    Raises:
        ValueError: the file is not a lock file.
        OSError: it cannot be read.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT or "plan" not in content:
        raise ValueError("not a lock file")
    return plans.from_json(json.dumps(content["plan"]))


def policy_of(path: Path) -> str:
    """The digest of the policy that a lock file, already read as one, was made of."""
    return str(json.loads(path.read_text(encoding="utf-8"))["policy"]["sha256"])
