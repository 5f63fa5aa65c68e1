"""Plans: golden text for a real model, and that they survive being written down."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from qcc.compiler.files.open_model import open_model
from qcc.compiler.plan.bind import bind
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.plan import Kernels, Plan
from qcc.compiler.plan.read_text import from_text
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
    assert from_text(Source("net.plan", to_text(plan))) == plan


@pytest.mark.parametrize("names", [(), ("avx3",), ("native",)])
def test_kernels_are_for_processors_of_a_target_that_has_some(names: tuple[str, ...]) -> None:
    assert Kernels("cpu", ("avx2", "generic"), "exact").of.name == "cpu"
    with pytest.raises(ValueError, match=r"no kernels for `cpu\(|unknown target `"):
        Kernels("cpu", names, "exact")
    with pytest.raises(ValueError, match="no kernels for `onnxruntime"):
        Kernels("onnxruntime", ("avx2",), "exact")
