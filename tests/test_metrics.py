"""Every metric's laws, and one metric whole: bounded in a policy, measured, reported, minimised."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.measure.tally import output_noise
from qcc.compiler.metrics.find import additive, judged, metrics, to_measure
from qcc.compiler.metrics.metric import Additive, Judged
from qcc.compiler.metrics.top_kl import CLASSES, TopKl
from qcc.compiler.plan.catalog import schema
from qcc.compiler.verify.outputs import compare
from qcc.dsl.diagnostics.report import QccError
from tests.onnx_models import parse, random

CLOSE, FAR = 1e-3, 1e-1  # of the logits, which are about one


def _logits(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


def _off(logits: np.ndarray, by: float) -> np.ndarray:
    return logits + by * np.random.default_rng(1).standard_normal(logits.shape)


def _value(metric: Judged, wanted: np.ndarray, got: np.ndarray) -> float:
    (check,) = compare([{"y": wanted}], [{"y": got}], None, [metric])
    return check.found.values[metric.name]


@pytest.mark.parametrize("metric", judged().values(), ids=lambda one: one.name)
class TestJudged:
    """What `verify` rests on."""

    def test_equal_outputs_are_equal(self, metric: Judged) -> None:
        assert _value(metric, _logits(4, 40), _logits(4, 40)) == pytest.approx(metric.equal, abs=1e-12)
        assert metric.changed(0.0) == metric.equal

    def test_more_noise_is_worse(self, metric: Judged) -> None:
        wanted = _logits(4, 40)
        values = [_value(metric, wanted, _off(wanted, by)) for by in (CLOSE, FAR)]
        assert metric.worse(*values) == values[1] != values[0]
        assert metric.noise(values[0]) < metric.noise(values[1])
        assert metric.holds(values[0], values[1]) and not metric.holds(values[1], values[0])

    def test_noise_is_a_power(self, metric: Judged) -> None:
        """A tenth of the error is a hundredth of the noise, by which an original that moves excuses others."""
        wanted = _logits(8, 400)
        less, more = (metric.noise(_value(metric, wanted, _off(wanted, by))) for by in (CLOSE, 10 * CLOSE))
        assert more / less == pytest.approx(100, rel=0.1)

    def test_what_is_lost_is_worse(self, metric: Judged) -> None:
        value = _value(metric, _logits(4, 40), _off(_logits(4, 40), CLOSE))
        for less, more in (
            (metric.without(value, 0.1), metric.without(value, 0.5)),
            (value, metric.reshaped(value, 0.5)),
        ):
            assert metric.worse(less, more) == more
        assert metric.worse(value, metric.lost) == metric.lost

    def test_a_bound_may_name_it(self, metric: Judged) -> None:
        declared = schema().verify[metric.name]
        assert (declared.relation, declared.units) == (metric.relation, metric.units)
        assert declared.summary and metric.text(0.5)

    def test_no_samples_and_one_number_do(self, metric: Judged) -> None:
        for shape in ((0, 3), (3, 0), (1,), ()):
            assert metric.worse(_value(metric, _logits(*shape), _logits(*shape)), metric.lost) == metric.lost


@pytest.mark.parametrize("metric", additive().values(), ids=lambda one: one.name)
class TestAdditive:
    """What the allocator rests on."""

    def test_independent_errors_add_up(self, metric: Additive) -> None:
        wanted = _logits(256, 64)
        one = 0.03 * np.random.default_rng(1).standard_normal(wanted.shape)
        other = 0.03 * np.random.default_rng(2).standard_normal(wanted.shape)
        losses = [self._loss(metric, wanted, wanted + error) for error in (one, other, one + other)]
        assert losses[2] == pytest.approx(losses[0] + losses[1], rel=0.05)
        assert self._loss(metric, wanted, wanted) == pytest.approx(0, abs=1e-12)

    def test_rows_that_a_mask_hides_do_not_count(self, metric: Additive) -> None:
        wanted = _logits(2, 3, 8)
        got = wanted.copy()
        got[:, 2] += 1 + np.arange(8)
        seen = np.array([[True, True, False]] * 2)
        found = output_noise({"y": got}, {"y": wanted}, 2, {"y": seen}, metric)
        assert found.loss == pytest.approx(0, abs=1e-12) and found.samples == 2
        assert output_noise({"y": got}, {"y": wanted}, 2, None, metric).loss > 0.01

    def test_it_can_be_minimised(self, metric: Additive) -> None:
        assert metric.name in schema().objectives and metric.name in schema().budget

    def _loss(self, metric: Additive, wanted: np.ndarray, got: np.ndarray) -> float:
        return output_noise({"y": got}, {"y": wanted}, len(wanted), None, metric).loss


def test_reports_tell_those_of_old_and_what_bounds_name() -> None:
    assert [one.name for one in to_measure()] == ["cosine", "sqnr", "relative_error"]
    assert [one.name for one in to_measure(["top_kl"])] == ["cosine", "sqnr", "relative_error", "top_kl"]
    names = "cosine sqnr relative_error output_error fisher top_kl content quality"
    assert " ".join(metrics()) == names


@pytest.mark.parametrize("classes", [2, CLASSES, CLASSES + 1, 500])
def test_the_divergence_is_that_of_the_whole_or_less(classes: int) -> None:
    wanted, got = 3 * _logits(6, classes), 3 * _off(_logits(6, classes), 0.3)
    p, q = (one - np.log(np.exp(one).sum(-1, keepdims=True)) for one in (wanted, got))
    whole = float((np.exp(p) * (p - q)).sum(-1).mean())
    found = _value(TopKl(), wanted, got)
    assert 0 < found <= whole + 1e-12
    if classes <= CLASSES + 1:
        assert found == pytest.approx(whole, rel=1e-9)


def test_the_divergence_forgets_what_all_classes_share() -> None:
    wanted = _logits(4, 50)
    assert _value(TopKl(), wanted, wanted + 1000.0) == pytest.approx(0, abs=1e-9)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    body = "g (float[A,16] x) => (float[A,48] y) { h = MatMul(x, w) g = Relu(h) y = MatMul(g, v) }"
    onnx.save(parse(body, {"w": random(16, 64), "v": random(64, 48, seed=1)}), path)
    return path


def _policy(folder: Path, rules: str) -> Path:
    (folder / "p.qpolicy").write_text(f"qpolicy 1\nrule any {{ weights = int{{2,4,8}} channel }}\n{rules}")
    return folder / "p.qpolicy"


@pytest.mark.slow
def test_a_metric_is_bounded_minimised_and_told(model: Path, tmp_path: Path) -> None:
    rules = "budget { bits <= 7 }\nminimize top_kl\nverify { top_kl <= 0.5; cosine >= 0.5 }\n"
    result = qcc.compile(model, _policy(tmp_path, rules))
    assert result.passed and result.allocation is not None and result.allocation.metric == "top_kl"
    (check,) = result.verification.outputs
    found = check.found.values["top_kl"]
    assert 0 < found < 0.5
    assert result.allocation.predicted_error == pytest.approx(found, rel=1.0)  # of a few layers, each alone
    assert "KL divergence" in result.report.read_text(encoding="utf-8")
    assert json.loads(result.lock.read_text(encoding="utf-8"))["verification"]["outputs"][0]["top_kl"] == found


def test_a_metric_that_fails_is_told(model: Path, tmp_path: Path) -> None:
    result = qcc.compile(model, _policy(tmp_path, "minimize size\nverify { top_kl <= 0.000001 }\n"))
    assert not result.passed and result.verification.bounds[0].bound.metric == "top_kl"


def test_losses_are_of_one_metric(model: Path, tmp_path: Path) -> None:
    with pytest.raises(QccError) as caught:
        qcc.compile(model, _policy(tmp_path, "budget { top_kl <= 0.1 }\nminimize output_error\n"))
    assert caught.value.diagnostics[0].code == "Q641"


def test_what_the_budget_bounds_is_minimised_where_nothing_is_said(model: Path, tmp_path: Path) -> None:
    result = qcc.compile(model, _policy(tmp_path, "budget { top_kl <= 0.5; size <= 90% }\n"))
    assert result.allocation is not None and result.allocation.objective == result.allocation.metric == "top_kl"
