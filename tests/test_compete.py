"""The whole model competes: with its library, without, and all decoded; what loses is not written, and is told."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.compile import decide_plan
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure import time_model
from qcc.compiler.measure.compete import decoded
from qcc.compiler.measure.time_forms import FLOAT, Case, Timings
from qcc.compiler.measure.time_model import Entrant, ModelTimes, Race, fastest, time_input, time_models
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.lock import plan_of
from qcc.compiler.report.times import latency_lines
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import Policy
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.kernel import KERNEL
from qcc.ir.graph.form import Form
from tests.onnx_models import parse, random

real_race = time_model.race  # before the session's fixture stands in for it
ROUNDS = 15
Times = dict[Form | str, float]
RULE = "rule linear { weights = int4 group 32 }\n"
BODY = """
two (float[batch, 3, 64] x) => (float[batch, 3, 32] y)
{
    h = MatMul (x, w1)
    r = Relu (h)
    y = MatMul (r, w2)
}
"""
Speed = Callable[[Entrant, int | None], float]


def policy(text: str) -> Policy:
    return load_text("qpolicy 1\n" + text, schema())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "two.onnx"
    onnx.save(parse(BODY, {"w1": random(64, 96), "w2": random(96, 32, seed=1)}, opset=21, ir_version=10), path)
    return path


@pytest.fixture
def kernels_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer by layer."""

    def seconds(
        self: Timings, case: Case, encoding: Blocked | None, forms: tuple[Form, ...], how: object = None
    ) -> Times:
        times: Times = {FLOAT: 1e-3, FUSED: 5e-4, DECODED: 1e-3, KERNEL: 2e-4}
        return {FLOAT: times[FLOAT]} | {form: times[form] for form in forms}

    monkeypatch.setattr(Timings, "seconds", seconds)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Callable[[Speed], None]:
    """Set what whole models take."""

    def take(speed: Speed) -> None:
        def fixed(entrants: Sequence[Entrant], data: object, threads: int | None) -> Race:
            seconds = np.array([[speed(one, threads)] * ROUNDS for one in entrants])
            return Race(threads, seconds, (0.1,) * len(entrants))

        monkeypatch.setattr(time_model, "race", fixed)
        monkeypatch.setattr(time_model, "thread_counts", lambda: (1, None))

    return take


def of_whole(original: Path, library: float, plain: float, rival: float, threads: int | None = 1) -> Speed:
    """Times over the input's at a number of threads; at the others all take as long."""

    def speed(one: Entrant, count: int | None) -> float:
        if count != threads or one.model == original:
            return 1.0
        if one.library is not None:
            return library
        for_kernels = any(node.op_type.startswith("linear_") for node in onnx.load(one.model).graph.node)
        return plain if for_kernels else rival

    return speed


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, None])
def test_a_library_that_loses_is_not_written(
    model: Path, kernels_win: None, whole: Callable[[Speed], None], threads: int | None
) -> None:
    pytest.importorskip("tvm")
    whole(of_whole(model, library=1.81, plain=0.93, rival=0.94, threads=threads))
    stale = model.with_name("two.qcc.kernels.so")
    stale.write_bytes(b"of an earlier run")
    result = qcc.compile(model, policy("target cpu\n" + RULE))
    assert result.kernels is None and not stale.exists() and result.passed
    (warning,) = result.warnings
    where = "one thread" if threads == 1 else "the runtime's default threads"
    assert warning.code == "Q506"
    assert warning.message.endswith(f"takes 1.95x the time of the same file without, {where}")
    assert result.times is not None and not result.times.with_kernels and not result.times.slower
    again = qcc.compile(model, policy("target cpu\n" + RULE), plan=plan_of(result.lock))
    assert again.kernels is None and not again.warnings


def test_a_library_that_wins_is_written(model: Path, kernels_win: None, whole: Callable[[Speed], None]) -> None:
    pytest.importorskip("tvm")
    whole(of_whole(model, library=0.5, plain=0.93, rival=0.94))
    result = qcc.compile(model, policy("target cpu\n" + RULE))
    assert result.kernels is not None and not result.warnings


@pytest.mark.slow
def test_another_assignment_of_forms_is_taken(model: Path, kernels_win: None, whole: Callable[[Speed], None]) -> None:
    pytest.importorskip("tvm")
    whole(of_whole(model, library=1.5, plain=1.4, rival=1.0))
    result = qcc.compile(model, policy("target cpu\n" + RULE))
    assert {row.form for row in result.layers} == {"decoded"} and result.kernels is None
    assert [one.code for one in result.warnings] == ["Q506"]
    assert result.times is not None and result.times.after_s == 1.0


def test_where_all_lose_it_is_told(model: Path, whole: Callable[[Speed], None]) -> None:
    whole(lambda one, threads: 1.0 if one.model == model else 1.63)
    result = qcc.compile(model, policy(RULE))
    (warning,) = result.warnings
    assert warning.code == "Q507"
    assert warning.message == "the file is slower than its input: 1.63x the time, one thread"
    assert result.times is not None
    lines = latency_lines(result.times)
    assert [style for _, style in lines] == ["red", "red", None]
    assert "1.63x the time of the input (slower); one sample, one thread" in lines[0][0]


def test_noise_is_amber_not_red() -> None:
    noisy = np.stack([np.ones(ROUNDS), np.where(np.arange(ROUNDS) % 3, 1.2, 0.8)])
    times = ModelTimes((Race(1, noisy, (0.1, 0.3)),), False, (0.1, 0.3))
    assert not times.slower
    (text, style), (start, _) = latency_lines(times)
    assert style == "yellow" and "1.20x the time of the input, within noise" in text
    assert start == "session start 100 ms -> 300 ms, decoding at load included; not in the times above"


def race_of(threads: int | None, *seconds: float) -> Race:
    return Race(threads, np.array([[one] * ROUNDS for one in seconds]), ())


def test_the_fastest_is_never_slower_than_the_input_if_one_is_not() -> None:
    """The second is faster in the mean, but loses to the input where it has one thread."""
    races = (race_of(1, 1.0, 1.1, 0.99), race_of(None, 1.0, 0.3, 0.99))
    assert fastest(races, (1, 2)) == 2


def test_the_first_stands_within_noise() -> None:
    races = (race_of(1, 1.0, 0.9, 0.89), race_of(None, 1.0, 0.9, 0.9))
    assert fastest(races, (1, 2)) == 1
    races = (race_of(1, 1.0, 0.9, 0.8), race_of(None, 1.0, 0.9, 0.9))
    assert fastest(races, (1, 2)) == 2


def test_decoded_leaves_no_kernel(model: Path, kernels_win: None) -> None:
    plan, _, _ = decide_plan(model, policy(RULE))
    weights = {weight.name: weight for weight in open_model(model).graph.weights()}
    rival = decoded(plan, weights)
    assert "fused" in to_text(plan) and "fused" not in to_text(rival) and "decoded" in to_text(rival)
    assert decoded(rival, weights) == rival


@pytest.mark.slow
def test_real_races_run(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_model, "race", real_race)
    data = Samples(({"x": np.zeros((1, 3, 64), np.float32)},), "test", divisible=True)
    assert time_input(model, data, ()) > 0
    times = time_models((model, model, None), data, None, ())
    assert times.before_s > 0 and times.plain_s > 0 and times.kernels_s is None
    assert all(len(race.starts_s) == 2 for race in times.races)
