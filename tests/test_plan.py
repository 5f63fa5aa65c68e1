"""Plans: golden text for a real model, and that they survive being written down."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from qcc.compiler.files.open_model import open_model
from qcc.compiler.plan.bind import bind
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.plan import Kernels, Plan
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.serial import from_json, to_json
from qcc.compiler.plan.text import to_text
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_policy

ROOT = Path(__file__).parent
CASES = sorted((ROOT / "golden" / "plans").glob("*.qpolicy"))
MODEL = ROOT.parent / "examples" / "fashion" / "fashion-cnn.onnx"
EXACT = re.compile(r"\d+\.\d{7,}(e-?\d+)?")


def _plan(policy: Path) -> Plan:
    diagnostics = Diagnostics()
    opened = open_model(MODEL)
    plan = bind(load_policy(policy, schema()), opened.graph, opened.size_bytes, diagnostics)
    diagnostics.raise_if_errors()
    return plan


@pytest.mark.parametrize("policy", CASES, ids=lambda path: path.stem)
def test_plan_text(policy: Path, golden: Callable[[Path, str], None]) -> None:
    text = to_text(_plan(policy)).replace(f"{policy.parent}/", "")
    text = EXACT.sub(lambda found: f"{float(found[0]):.6g}", text)  # the last digits are the processor's
    golden(policy.with_suffix(".out"), text)


@pytest.mark.parametrize("policy", CASES, ids=lambda path: path.stem)
def test_a_plan_reads_back_as_it_was(policy: Path) -> None:
    plan = _plan(policy)
    assert from_json(to_json(plan)) == plan
    assert from_text(Source("net.plan", to_text(plan))) == plan


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "is": "Plan"}', '{"version": 1}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a plan"):
        from_json(text)


def test_kernels_of_plans_that_named_no_target_are_the_cpus() -> None:
    plan = Plan((), kernels=Kernels("cpu", ("avx2", "generic"), "exact"))
    data = json.loads(to_json(plan))
    data["kernels"] = {"is": "Kernels", "targets": ["avx2", "generic"], "activations": "exact"}
    assert from_json(json.dumps(data)) == plan
    for wrong in ('"targets": []', '"targets": ["avx3"]', '"targets": ["native"]', '"target": "onnxruntime"'):
        data["kernels"] = {"is": "Kernels", "targets": ["avx2"], "activations": "exact", **json.loads(f"{{{wrong}}}")}
        with pytest.raises(ValueError, match=r"not a plan: `plan\.kernels`"):
            from_json(json.dumps(data))
