"""Times that are foretold: how well, where they end, and that nothing is foretold beyond."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.__main__ import main
from qcc.codegen.target.machine import machine
from qcc.compiler.measure.learned.forest import accuracy, fitted_forest
from qcc.compiler.measure.learned.foretold import ForetoldTimings, told_of_times
from qcc.compiler.measure.learned.learn import LARGEST, MOST_ROWS, SMALLEST, drawn
from qcc.compiler.measure.learned.timed import LearnedTimes, TimedLayer, as_rows, from_rows, judged
from qcc.compiler.measure.time_forms import FLOAT, Case, Timings
from qcc.compiler.plan.costs import latency_threads
from qcc.compiler.repeat import loaded_policy
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.fused import FUSED
from qcc.ir.graph.form import Form
from qcc.passes.contract.activations import Activations
from tests import onnx_models

INT4, INT8 = Blocked(IntGrid(4), group(32)), Blocked(IntGrid(8), group(32))


def modelled(case: Case, bits: float, threads: int = 1) -> float:
    """Seconds of a machine with a launch, a rate of products, and one of bytes that falls beyond a cache.

    Threads share the products; bytes from beyond the cache come no faster, and each thread has to be woken.
    """
    weights = case.outputs * case.inputs
    held = weights * bits / 8
    moved = held / (4e10 * threads if held < 1 << 20 else 1e10)
    return 2e-6 * threads + 2 * weights * case.rows / 8e10 / threads + moved


def layers(count: int = 80, threads: int = 1) -> list[TimedLayer]:
    found = []
    for case in drawn(count):
        found.append(TimedLayer.of(case, None, FLOAT, modelled(case, 32, threads), threads))
        found.append(TimedLayer.of(case, INT4, "fused", modelled(case, 5, threads), threads))
    return found


@cache
def learned() -> LearnedTimes:
    return LearnedTimes(layers())


def test_a_forest_learns_what_a_line_leaves_over() -> None:
    random = np.random.default_rng(0)
    x = random.uniform(0, 1, (400, 5))
    y = 3 * x[:, 0] + np.sin(6 * x[:, 1]) + x[:, 2] * x[:, 3]
    forest = fitted_forest(x[:300], y[:300], trees=40)
    score, _ = accuracy(forest(x[300:]), y[300:])
    assert score > 0.98
    assert np.array_equal(forest(x[300:]), fitted_forest(x[:300], y[:300], trees=40)(x[300:]))  # the same again


def test_shapes_that_were_held_out_are_foretold() -> None:
    for found in judged(layers()).values():
        assert found.score >= 0.98 and found.error <= 0.15 and found.held >= 20


@pytest.mark.slow
def test_threads_are_told_apart_and_beyond_them_nothing_is_foretold() -> None:
    found = [one for count in (1, 2, 4) for one in layers(60, count)]
    by_threads = judged(found)
    assert list(by_threads) == [1, 2, 4]
    for one in by_threads.values():
        assert one.score >= 0.98 and one.error <= 0.15
    times, case = LearnedTimes(found), Case(384, 1536, 32)
    told = {count: TimedLayer.of(case, INT4, "fused", threads=count) for count in (1, 2, 3, 4, 8)}
    assert [times.knows(one) for one in told.values()] == [True, True, True, True, False]
    one, four = times.seconds([told[1], told[4]])
    assert four / one == pytest.approx(modelled(case, 5, 4) / modelled(case, 5, 1), rel=0.3)


def test_shapes_are_drawn_alike_and_the_ends_are_among_them() -> None:
    assert list(drawn(30)) == list(drawn(60))[: len(list(drawn(30)))]
    sizes = [(one.outputs, one.inputs, one.rows) for one in drawn(30)]
    assert min(min(one[:2]) for one in sizes) == SMALLEST and max(max(one[:2]) for one in sizes) == LARGEST
    assert {1, MOST_ROWS} <= {one[2] for one in sizes}


def test_what_is_kept_reads_back_and_what_is_damaged_is_nothing() -> None:
    found = layers(20)
    assert from_rows(as_rows(found)) == found
    broken: tuple[object, ...] = (None, {}, [{"outputs": 3}], [3])
    for damaged in broken:
        assert from_rows(damaged) == []


class _Clock(Timings):
    """Takes what it is asked for down."""

    def __init__(self, threads: int = 1) -> None:
        self.asked: list[Case] = []
        self.threads = threads

    def seconds(
        self, case: Case, encoding: Encoding | None, forms: tuple[Form, ...], how: Activations | None = None
    ) -> Mapping[Form | str, float]:
        self.asked.append(case)
        return {FLOAT: 1.0} | dict.fromkeys(forms, 1.0)


def test_within_it_is_foretold_and_beyond_it_is_measured() -> None:
    clock = _Clock()
    timings = ForetoldTimings(clock, learned())
    inside = Case(384, 1536, 32)
    found = timings.seconds(inside, INT4, (FUSED, DECODED))
    assert not clock.asked and found[DECODED] == found[FLOAT]
    assert found[FUSED] == pytest.approx(modelled(inside, 5), rel=0.3)  # of one shape; half of them are within 15 %
    for beyond in (Case(8192, 384, 32), Case(384, 384, 4096)):
        assert timings.seconds(beyond, INT4, (FUSED,))[FUSED] == 1.0
    assert timings.seconds(inside, INT8, (FUSED,))[FUSED] == 1.0  # a format that was not timed
    other = ForetoldTimings(_Clock(2), learned())  # on threads that were not timed
    assert other.seconds(inside, INT4, (FUSED,))[FUSED] == 1.0
    assert len(clock.asked) == 3
    assert told_of_times(timings).endswith("2 lie outside of that, and were measured")
    assert told_of_times(clock) == ""


def test_nothing_was_learned_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    body = "g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }"
    onnx.save(onnx_models.parse(body, {"w": onnx_models.random(64, 64)}, opset=21), tmp_path / "m.onnx")
    text = "qpolicy 1\nrule linear { weights = int4 group 32 | float }\nbudget { latency(learned) <= 90% }"
    with pytest.raises(QccError) as caught:
        qcc.compile(tmp_path / "m.onnx", text, output=tmp_path / "o.onnx")
    assert caught.value.diagnostics[0].code == "Q663" and not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize("words", [["--learn", "m.onnx"], [], ["m.onnx", "-p", "fast"], ["--learn", "--shapes", "3"]])
def test_learning_takes_no_models_reject(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert capsys.readouterr().err


@pytest.mark.slow
def test_what_is_learned_here_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("qcc.compiler.commands.bench.FEWEST_SHAPES", 10)
    assert main(["bench", "--learn", "--shapes", "10", "--threads", "1"]) == 0
    assert "held out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ("threads = 2", (("threads", 2),)),
        ("learned, threads = 2", (("threads", 2),)),
        ("context = 2k, generate = 512, threads = 4", (("context", 2000), ("generate", 512), ("threads", 4))),
    ],
)
def test_a_bound_says_on_how_many_threads(said: str, counts: tuple[tuple[str, int], ...]) -> None:
    policy = loaded_policy(f"qpolicy 1\nrule any {{ weights = int8 }}\nbudget {{ latency({said}) <= 50% }}", None, None)
    (bound,) = policy.budget
    assert bound.counts == counts and (bound.argument == "learned") == ("learned" in said)
    assert latency_threads(policy) == dict(counts)["threads"]
    assert bound.text == f"latency({said}) <= 50%"


@pytest.mark.parametrize("said", ["threads = 0", "threads = many", "threads = 2, threads = 4", "learned, learned"])
def test_a_bound_says_on_how_many_threads_reject(said: str) -> None:
    with pytest.raises(QccError):
        loaded_policy(f"qpolicy 1\nrule any {{ weights = int8 }}\nbudget {{ latency({said}) <= 50% }}", None, None)


def test_more_threads_than_cores_reject(tmp_path: Path) -> None:
    body = "g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }"
    onnx.save(onnx_models.parse(body, {"w": onnx_models.random(64, 64)}, opset=21), tmp_path / "m.onnx")
    text = "qpolicy 1\nrule linear { weights = int4 group 32 | float }\nbudget { latency(threads = 4096) <= 90% }"
    with pytest.raises(QccError) as caught:
        qcc.compile(tmp_path / "m.onnx", text, output=tmp_path / "o.onnx")
    assert caught.value.diagnostics[0].code == "Q454" and not (tmp_path / "o.onnx").exists()


def test_layers_and_models_are_timed_on_as_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("qcc.compiler.measure.choose_form.machine", lambda: replace(machine(), cores=2))
    body = "g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }"
    onnx.save(onnx_models.parse(body, {"w": onnx_models.random(64, 64)}, opset=21), tmp_path / "m.onnx")
    text = "qpolicy 1\nrule linear { weights = int4 group 32 }\nbudget { latency(threads = 2) <= 900% }"
    result = qcc.compile(tmp_path / "m.onnx", text, output=tmp_path / "o.onnx")
    assert result.times is not None and result.times.threads == 2
    assert 2 in [one.threads for one in result.times.races]
    assert list((tmp_path / "cache").rglob("timings-*-2.json"))
