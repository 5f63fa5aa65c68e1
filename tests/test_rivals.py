"""Ways to round activations beside each other: each format is tried with each, and the allocator chooses."""

from pathlib import Path

import onnx
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.lock import plan_of
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import to_text as policy_text
from qcc.passes.activations.static import Static
from tests.onnx_models import parse, random

RULES = "qpolicy 1\nrule linear { weights = int8 channel; activations = static | dynamic | off }\n"
OUTLIER = 400.0  # in a channel of what the second layer reads: one step for all leaves nothing of the others


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two layers: what the second reads has an outlier that its weights hardly see."""
    first, second = random(64, 128, seed=1) / 8, random(128, 64, seed=2) / 11
    first[:, 0] *= OUTLIER
    second[0] /= OUTLIER * 50
    body = "g (float[n, 64] x) => (float[n, 64] y) { a = MatMul(x, u) b = Relu(a) y = MatMul(b, v) }"
    onnx.save(parse(body, {"u": first, "v": second}, opset=21), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


DATA = [{"x": random(4, 64, seed=at)} for at in range(16)]


def test_each_format_meets_each_way(model: Path, tmp_path: Path) -> None:
    """Where weights and activations compete, a layer with an outlier gets a step a token, or floats."""
    text = RULES + "minimize output_error\nbudget { size <= 60% }\n"
    result = qcc.compile(model, text, data=DATA, output=tmp_path / "o.onnx")
    plan = plan_of(result.lock)
    chosen = {name: step.action.activations for step in plan.steps if step.weights for name in step.weights}  # type: ignore[attr-defined]
    assert len(chosen) == 2 and not isinstance(chosen["v"], Static)
    assert result.allocation is not None and result.allocation.candidates == 6
    assert from_text(Source("p", to_text(plan))) == plan


def test_one_way_is_no_choice(model: Path, tmp_path: Path) -> None:
    one = RULES.replace("static | dynamic | off", "dynamic")
    result = qcc.compile(model, one, data=DATA, output=tmp_path / "o.onnx")
    assert result.allocation is None


def test_the_policy_is_printed_as_it_was() -> None:
    found = load_text(RULES, schema())
    again = load_text(policy_text(found), schema())
    assert [one.assignments for one in again.rules] == [one.assignments for one in found.rules]
    assert "activations = static(range = absmax" in policy_text(found) and "| off" in policy_text(found)


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("rule linear { weights = int8; rounding = gptq | nearest }", "Q203"),
        ("rule linear { weights = int8; activations = static | statics }", "Q208"),
    ],
)
def test_other_methods_are_no_choice_reject(rule: str, code: str) -> None:
    with pytest.raises(QccError) as caught:
        load_text(rule, schema())
    assert [one.code for one in caught.value.diagnostics if one.severity == "error"] == [code]


def test_attentions_have_no_choice_reject(tmp_path: Path) -> None:
    body = """g (float[n, 4, 8, 16] q, float[n, 4, 16, 8] k, float[n, 4, 8, 16] v) => (float[n, 4, 8, 16] y)
    { s = MatMul(q, k) p = Softmax <axis = -1> (s) y = MatMul(p, v) }"""
    onnx.save(parse(body, {}, opset=21), tmp_path / "m.onnx")
    with pytest.raises(QccError, match="Q690"):
        qcc.compile(tmp_path / "m.onnx", "rule attention { activations = static | off }", output=tmp_path / "o.onnx")
