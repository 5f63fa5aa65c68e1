"""The preset `fast`: candidates by what is known of the data, chosen by the clock under a bound where there is data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.compile import decide_plan
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.time_forms import FLOAT, Case, Timings
from qcc.compiler.plan.bind import bind, opened_by_data
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.plan import Plan
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.load import load_policy, load_text
from qcc.dsl.policy.policy import Policy
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.forms.kernel import KERNEL
from qcc.ir.graph.form import Form
from qcc.passes.encode import Encode
from tests.onnx_models import parse, random

Times = dict[Form | str, float]
BODY = """
two (float[batch, 3, 64] x) => (float[batch, 3, 32] y)
{
    h = MatMul (x, w1)
    r = Relu (h)
    y = MatMul (r, w2)
}
"""
DATA = {"x": np.random.default_rng(3).standard_normal((64, 3, 64)).astype(np.float32)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "two.onnx"
    onnx.save(parse(BODY, {"w1": random(64, 96), "w2": random(96, 32, seed=1)}, opset=21, ir_version=10), path)
    return path


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], None]:
    """Set what kernels take of float's time, by the format's first word; all else takes as long as float."""

    def take(ratios: dict[str, float]) -> None:
        def seconds(
            self: Timings, case: Case, of: Blocked | None, forms: tuple[Form, ...], how: object = None
        ) -> Times:
            kernel = ratios.get(of.text.split()[0], 1.0) if of else 1.0
            return {FLOAT: 1e-3} | {form: 1e-3 * (kernel if form == KERNEL else 1.0) for form in forms}

        monkeypatch.setattr(Timings, "seconds", seconds)

    return take


def policy(text: str) -> Policy:
    return load_text("qpolicy 1\n" + text, schema())


def chosen(plan: Plan) -> set[tuple[str, str]]:
    actions = [step.action for step in plan.steps if isinstance(step.action, Encode)]
    return {(action.encoding.text.split()[0], str(action.form)) for action in actions}


def fast(model: Path) -> Plan:
    return decide_plan(model, load_policy("fast", schema()))[0]


def test_without_data_four_bits_do_not_compete(model: Path, kernels: Callable[[dict[str, float]], None]) -> None:
    kernels({"int4": 0.1, "int8": 0.5, "bf16": 0.7})
    assert chosen(fast(model)) == {("int8", "kernel")}
    kernels({"int4": 0.1, "int8": 1.2, "bf16": 0.7})
    assert chosen(fast(model)) == {("bf16", "kernel")}


@pytest.mark.slow
def test_data_opens_four_bits(model: Path, kernels: Callable[[dict[str, float]], None]) -> None:
    kernels({"int4": 0.1, "int8": 0.5, "bf16": 0.7})
    loose = policy('use "fast"\nbudget { output_error(given) <= 10% }')
    plan, _, _ = decide_plan(model, loose, data=[DATA])
    assert chosen(plan) == {("int4", "kernel")}


def test_the_bound_holds_where_data_is_given(model: Path, kernels: Callable[[dict[str, float]], None]) -> None:
    """Random weights in four bits lose more than a thousandth of the signal, however fast they are."""
    kernels({"int4": 0.1, "int8": 0.5, "bf16": 0.7})
    tight = policy('use "fast"\nbudget { output_error(given) <= 0.1% }')
    plan, _, _ = decide_plan(model, tight, data=[DATA])
    assert chosen(plan) == {("int8", "kernel")}


def test_where_nothing_gains_the_smaller_is_taken(model: Path, kernels: Callable[[dict[str, float]], None]) -> None:
    kernels({"int8": 1.5, "bf16": 1.5})
    result = qcc.compile(model, "fast")
    assert {row.form for row in result.layers} == {"decoded"} and {row.bits < 9 for row in result.layers} == {True}
    assert result.kernels is None and [one.code for one in result.warnings] == ["Q503"]
    assert result.warnings[0].message == "no layer gains by a kernel on this processor: no library is written"


@pytest.mark.slow
def test_the_report_says_what_data_opens(model: Path, kernels: Callable[[dict[str, float]], None]) -> None:
    kernels({"int8": 1.5, "bf16": 1.5})
    (note,) = qcc.compile(model, "fast").notes
    assert note.startswith("2 weights: more to choose from where data is given") and "int4 group 32" in note
    assert not qcc.compile(model, "fast", data=[DATA]).notes


def test_no_error_is_measured_that_decides_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("qcc.compiler.measure.evidence.losses_of", measure)
    result = qcc.compile(model, policy("rule any { weights = int8 channel | int4 channel }\nminimize size"))
    assert result.allocation is not None and result.allocation.predicted_error is None
    assert {row.loss for row in result.layers} == {None}


def test_a_rule_that_waits_for_data_is_no_mistake(model: Path) -> None:
    graph, text = open_model(model).graph, "rule any { weights = int8 }\nrule linear[data == given] { weights = int4 }"
    for given, bits in ((False, "int8"), (True, "int4")):
        diagnostics = Diagnostics()
        plan = bind(policy(text), graph, 1 << 20, diagnostics, given=given)
        assert not diagnostics.found and {word for word, _ in chosen(plan)} == {bits}
    (line,) = opened_by_data(policy(text), graph.weights())
    assert line.endswith(": int4")


def test_a_rule_that_no_data_makes_match_is_one(model: Path) -> None:
    diagnostics = Diagnostics()
    text = 'rule linear[data == given, name == "nosuch"] { weights = int4 }'
    bind(policy(text), open_model(model).graph, 1 << 20, diagnostics, given=False)
    assert [one.code for one in diagnostics.found] == ["Q301"]


def test_a_bound_on_given_data_binds_nothing_without(model: Path) -> None:
    text = "rule any { weights = int8 | int4 }\nbudget { output_error(given) <= 1e-9 }\nminimize size"
    plan, _, _ = decide_plan(model, policy(text))
    assert {bits for bits, _ in chosen(plan)} == {"int4"}
    with pytest.raises(qcc.BudgetError, match="output_error"):
        decide_plan(model, policy(text), data=[DATA])


@pytest.mark.parametrize(
    ("text", "code"),
    [("rule any[data == mine] { keep }", "Q219"), ("rule any[data > given] { keep }", "Q219"),
     ("rule any { weights = int8 }\nbudget { output_error(mine) <= 1% }", "Q212")],
)  # fmt: skip
def test_what_is_no_data_is_refused(text: str, code: str) -> None:
    with pytest.raises(qcc.QccError) as caught:
        policy(text)
    assert [one.code for one in caught.value.diagnostics] == [code]
