"""A plan is whole: it keeps what its policy says beside rules, reads back, and runs without the policy."""

import string
from pathlib import Path

import hypothesis.strategies as st
import onnx
import pytest
from hypothesis import given, settings

import qcc
from qcc.__main__ import main
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.plan import Plan
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.terms import policy_of, terms_of
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.lock import read_lock
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from tests.onnx_models import parse, random

TARGETS = ("", "target onnxruntime", "target cpu(avx2)", "target cpu(avx2, avx512-vnni)")
DATA = ("", "calibrate generated { seed = 3 }", 'calibrate "folder/some data.npz" { samples = 7 }')
EXPORTS = (
    "",
    "export { opset = 21 }",
    "export { external_data = never, kernels = none, activations = exact, rows = 4 }",
)
NET = """net (float[n,32] x) => (float[n,16] y) {
    h = MatMul(x, first)
    r = Relu(h)
    y = MatMul(r, second)
}"""


@pytest.mark.slow
@given(
    st.sampled_from(TARGETS),
    st.sampled_from(DATA),
    st.sampled_from(EXPORTS),
    st.lists(st.sampled_from(("cosine >= 0.9", "sqnr >= 12 dB", "relative_error <= 5%")), unique=True),
)
@settings(max_examples=60, deadline=None)
def test_terms_are_what_the_policy_says(target: str, data: str, export: str, bounds: list[str]) -> None:
    verify = f"verify {{ {', '.join(bounds)} }}" if bounds else ""
    lines = ["qpolicy 1", target, data, verify, export, "param bits = 4", "rule any { weights = int8 channel }"]
    policy = load_text("\n".join(lines) + "\n", schema())
    again = policy_of(terms_of(policy))
    assert terms_of(again) == terms_of(policy)
    assert (again.target, again.verify, again.export) == (policy.target, policy.verify, policy.export)
    assert again.rules == ()
    if policy.calibrate is None or again.calibrate is None:
        assert again.calibrate == policy.calibrate
    else:
        assert (again.calibrate.samples, again.calibrate.seed) == (policy.calibrate.samples, policy.calibrate.seed)
        assert again.calibrate.path == (policy.calibrate.path and Path(policy.calibrate.path).name)
    plan = Plan((), terms=terms_of(policy))
    assert from_text(Source("p.plan", to_text(plan))) == plan
    assert all(line in to_text(plan) for line in plan.terms)


@given(st.lists(st.text(string.printable, max_size=20), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_what_are_no_terms_is_no_plan(lines: list[str]) -> None:
    try:
        plan = from_text(Source("p.plan", to_text(Plan((), terms=tuple(lines)))))
    except QccError:
        return
    policy_of(plan.terms)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("terms")
    onnx.save(parse(NET, {"first": random(32, 64), "second": random(64, 16)}), made / "net.onnx")
    text = """qpolicy 1
    param bits = 4
    calibrate generated { samples = 8, seed = 5 }
    rule linear { weights = int8 channel | int4 channel }
    budget { bits <= 7 }
    verify { cosine >= 0.5 }
    export { opset = 21 }
    """
    (made / "p.qpolicy").write_text(text, encoding="utf-8")
    qcc.compile(made / "net.onnx", made / "p.qpolicy")
    return made


@pytest.mark.slow
def test_a_lock_runs_without_its_policy_to_the_same_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock, output = folder / "net.qcc.lock", folder / "again.onnx"
    assert main(["compile", str(folder / "net.onnx"), "--plan", str(lock), "-o", str(output), "-q"]) == 0
    assert capsys.readouterr().err == ""
    assert output.read_bytes() == (folder / "net.qcc.onnx").read_bytes()
    result = qcc.compile(folder / "net.onnx", plan=read_lock(lock), output=folder / "third.onnx")
    assert [check.bound.text for check in result.verification.bounds] == ["cosine >= 0.5"]
    assert result.verification.samples == 8


@pytest.mark.slow
def test_parameters_are_for_policies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = str(folder / "net.qcc.lock")
    status = main(["compile", str(folder / "net.onnx"), "--plan", lock, "-D", "bits=8", "-o", str(folder / "no.onnx")])
    assert status == 1
    assert "Q2" in capsys.readouterr().err
    assert not (folder / "no.onnx").exists()
