"""Two metrics on two groups of layers: at equal bytes neither is worse than with one metric for all."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.allocate.choice.balance import NEAR, balance_of
from qcc.compiler.allocate.choice.solve import BudgetRow, Problem, solve
from qcc.compiler.metrics.content import Content
from qcc.compiler.metrics.quality import Quality
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.plan import Allocate, Counted, Plan
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.console import write_report
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import Policy
from qcc.dsl.policy.policy import to_text as policy_text
from tests import onnx_models
from tests.onnx_models import random

RULE = "qpolicy 1\nrule linear { weights = int{2,3,4,5,6,8} group 32 }\n"
TWO = "metric content on linear[position < 3]\nmetric quality on linear[position >= 3]\n"
SMALL = "budget { size <= 16% }\n"
LAYERS, WIDTH = 6, 128


def policy(text: str) -> Policy:
    return load_text(RULE + text, schema())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    lines = [f"h{at} = MatMul (r{at}, w{at}) r{at + 1} = Tanh (h{at})" for at in range(LAYERS)]
    text = f"deep (float[n, {WIDTH}] r0) => (float[n, {WIDTH}] r{LAYERS}) {{ {' '.join(lines)} }}"
    scales = np.random.default_rng(7).uniform(0.05, 0.2, LAYERS)
    weights = {f"w{at}": (scales[at] * random(WIDTH, WIDTH, seed=at)).astype(np.float32) for at in range(LAYERS)}
    onnx.save(onnx_models.parse(text, weights, opset=21, ir_version=10), tmp_path / "deep.onnx")
    return tmp_path / "deep.onnx"


def drawn(units: int, candidates: int, seed: int) -> tuple[Problem, dict[str, list[np.ndarray]]]:
    """Losses that fall with bytes, in two metrics that disagree."""
    rng = np.random.default_rng(seed)
    size = [np.arange(1.0, candidates + 1) * rng.integers(1, 9) for _ in range(units)]
    loss, one, other = ([rng.uniform(0.1, 10) * 4.0 ** -np.arange(candidates) for _ in range(units)] for _ in range(3))
    row = BudgetRow("size", tuple(size), 0.5 * sum(float(part[-1]) for part in size))
    counted = {"content": [part * (at % 3 != 0) for at, part in enumerate(one)]}
    counted["quality"] = [part * (at % 2 == 0) for at, part in enumerate(other)]  # some count in both
    return Problem(tuple(np.asarray(one) for one in loss), (row,)), counted


@pytest.mark.parametrize("seed", range(4))
def test_neither_is_worse_and_no_choice_is_better_than_told(seed: int) -> None:
    problem, metrics = drawn(12, 4, seed)
    alone = solve(problem)
    best, balance = balance_of(problem, alone, metrics)
    row = problem.rows[0]
    assert sum(part[at] for part, at in zip(row.weight, best.choice, strict=True)) <= row.bound
    worst = max(both / before for both, before in balance.values())
    assert worst < 1
    for _ in range(2000):
        choice = np.random.default_rng(seed).integers(0, 4, 12)
        if sum(part[at] for part, at in zip(row.weight, choice, strict=True)) <= row.bound:
            shares = [
                sum(part[at] for part, at in zip(rows, choice, strict=True)) / balance[name][1]
                for name, rows in metrics.items()
            ]
            assert max(shares) >= worst - NEAR


def test_content_and_quality_part_the_output() -> None:
    wanted, got = random(5, 30), random(5, 30, seed=1)
    coarse, fine = (one.powers(wanted, got)[0].sum() for one in (Content(), Quality()))
    assert coarse + fine == pytest.approx(((got - wanted) ** 2).sum(), rel=1e-5)


def test_one_policy_from_text_to_file(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = random(64, WIDTH, seed=9)
    both = policy(TWO + SMALL + "minimize max(content, quality)\n")
    assert load_text(policy_text(both), schema()) == both
    result, one = (qcc.compile(model, asked, data=[{"r0": x}]) for asked in (both, policy(SMALL)))
    assert result.allocation is not None and result.allocation.objective == "max(content, quality)"
    assert {*result.allocation.balance} == {"content", "quality"}
    assert all(now <= before for now, before in result.allocation.balance.values())
    write_report(result)
    assert "of what `minimize output_error` would lose" in " ".join(capsys.readouterr().out.split())
    assert one.allocation is not None and not one.allocation.balance


def test_two_budgets(model: Path) -> None:
    """Each metric keeps its own bound, and bytes are what is minimised."""
    data, sizes = [{"r0": random(64, WIDTH, seed=9)}], []
    for bounds in ("content <= 2%, quality <= 2%", "content <= 2%, quality <= 0.02%"):
        result = qcc.compile(model, policy(TWO + f"budget {{ {bounds} }}\nminimize size\n"), data=data)
        sizes.append(result.layers)
    first, second = ([row.bits for row in rows] for rows in sizes)
    half = LAYERS // 2
    assert first[:half] == second[:half] and sum(first[half:]) < sum(second[half:])


def test_an_open_plan_reads_back() -> None:
    plan = Plan((), (), Allocate("max(content, quality)", (), (), {}, (Counted("content", ("a b", "c")),)))
    assert from_text(Source("<plan>", to_text(plan))) == plan


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("metric content in linear\nminimize max(content)\n", "Q260"),
        ("metric size on linear\nminimize size\n", "Q260"),
        ("metric content on linear\nminimize max(content, quality)\n", "Q261"),
        ("metric content on linear\n", "Q261"),
        ("minimize least(content)\n", "Q228"),
        ("minimize max(size)\n", "Q228"),
    ],
)
def test_language_reject(text: str, code: str) -> None:
    with pytest.raises(QccError) as error:
        policy(text)
    assert code in {one.code for one in error.value.diagnostics}


def test_layers_that_count_nowhere_reject(model: Path) -> None:
    with pytest.raises(QccError) as error:
        qcc.compile(
            model,
            policy("metric content on linear[position < 3]\nminimize max(content)\n"),
            data=[{"r0": random(8, WIDTH)}],
        )
    assert {one.code for one in error.value.diagnostics} == {"Q672"}
