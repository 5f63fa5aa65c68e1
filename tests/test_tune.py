"""Searching for parameters: what is better is found and judged apart, what is not is told, and bad input is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.__main__ import main
from qcc.compiler.observe.executor import Again
from qcc.compiler.observe.look import Look, LookStep
from qcc.compiler.tune.space import Axis, Search
from qcc.compiler.tune.tune import _surely, tune
from qcc.dsl.diagnostics.report import QccError
from tests.onnx_models import parse, random

BODY = "g (float[N, 64] x) => (float[N, 48] y) { y = MatMul (x, w) }"
POLICY = """qpolicy 1
param damping = 10
param clip = absmax
rule any { weights = int3 channel; rounding = gptq(damping = $damping, clip = $clip, doubt = 0) }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(parse(BODY, {"w": random(64, 48)}), tmp_path / "net.onnx")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((800, 64)) @ (rng.standard_normal((64, 64)) * np.exp(rng.standard_normal(64)))
    np.savez(tmp_path / "data.npz", x=x.astype(np.float32))
    (tmp_path / "p.qpolicy").write_text(POLICY, encoding="utf-8")
    return tmp_path


def test_values_lie_in_their_ranges() -> None:
    axes = [Axis("a", (), 0.001, 10), Axis("b", (), 2, 8, whole=True), Axis("c", ("x", "y")), Axis("d", (), 5, 50, "%")]
    search, best = Search(axes, 30, 0), None
    tried = []
    for at in range(30):
        choice = search.next(at, best)
        assert choice is not None
        best = choice if at == 12 else best
        tried.append(tuple(choice.values()))
        assert 0.001 <= float(choice["a"]) <= 10 and int(choice["b"]) in range(2, 9)
        assert choice["c"] in "xy" and choice["d"].endswith("%") and 5 <= float(choice["d"][:-1]) <= 50
    assert len(set(tried)) == 30
    assert Search([Axis("c", ("x",))], 3, 0).next(0, None) == {"c": "x"}


def test_a_search_that_has_tried_all_ends() -> None:
    search = Search([Axis("c", ("x", "y"))], 9, 0)
    assert {search.next(0, None)["c"], search.next(1, None)["c"]} == {"x", "y"}  # type: ignore[index]  # there are two
    assert search.next(2, None) is None


def test_statistics_are_taken_once_for_all_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs that ask the same of the same model go by what the first was told, and nothing is left of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    take, taken = Look.take, list[int]()

    def counted(self: Look, step: LookStep) -> None:
        taken.append(1)
        take(self, step)

    monkeypatch.setattr(Look, "take", counted)
    axes, given = [Axis("damping", (), 0.001, 10)], (folder / "net.onnx", folder / "p.qpolicy")
    found = tune(*given, axes, 3, folder / "data.npz")
    once = len(taken)
    assert once and not [*(tmp_path / "cache").rglob("observed-*")]
    monkeypatch.setattr(Again, "__init__", lambda _: None)
    again = tune(*given, axes, 3, folder / "data.npz")
    assert again == found and len(taken) == once + 4 * once


@pytest.mark.slow
def test_bad_defaults_are_beaten(folder: Path) -> None:
    axes = [Axis("damping", (), 0.001, 10), Axis("clip", ("mse", "absmax"))]
    found = tune(folder / "net.onnx", folder / "p.qpolicy", axes, 8, folder / "data.npz")
    assert found.best and found.beats and found.lost[1] < found.lost[0] and found.samples == (400, 200, 200)
    best = found.trials[found.best]
    assert best.lost == min(one.lost for one in found.trials) and best.size_bytes <= found.trials[0].size_bytes * 1.001
    again = tune(folder / "net.onnx", folder / "p.qpolicy", axes, 8, folder / "data.npz")
    assert again == found


def test_what_differs_by_chance_beats_nothing() -> None:
    assert not _surely(np.zeros(20)) and not _surely(np.array([1.0, -1.0, 0.5, -0.6])) and _surely(np.arange(5) + 1.0)


def test_the_command_tells_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", str(folder / "net.onnx"), "-p", str(folder / "p.qpolicy"), "--data", str(folder / "data.npz")]
    assert main([*words, "--over", "damping=0.01..1", "--runs", "2", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["trials"]) == 3 and told["samples"]["judge"] == 200
    assert main([*words, "--over", "damping=0.01..1", "--runs", "1"]) == 0
    assert "on 200 samples; 200 others chose, 400 calibrated" in capsys.readouterr().out


def test_the_policy_may_name_the_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", str(folder / "net.onnx"), "-p", str(folder / "p.qpolicy"), "--over", "damping=1..5", "--runs", "1"]
    assert main(words) == 1
    assert "error[Q545]: a search is judged on data, and none is given" in capsys.readouterr().err
    named = POLICY.replace("param damping", 'calibrate "data.npz" { samples = 200 }\nparam damping')
    (folder / "p.qpolicy").write_text(named, encoding="utf-8")
    assert main(words) == 0
    assert "on 50 samples; 50 others chose, 100 calibrated" in capsys.readouterr().out


@pytest.mark.parametrize(
    "over", ["damping", "damping=", "clip=mse", "damping=1..0", "damping=1%..2B", "damping=1.2.3..4"]
)
def test_ranges_reject(over: str, folder: Path) -> None:
    words = ["tune", str(folder / "net.onnx"), "-p", str(folder / "p.qpolicy"), "--data", str(folder / "data.npz")]
    assert main([*words, "--over", over]) == 2
    assert main(words) == 2


def test_what_is_no_parameter_reject(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", str(folder / "net.onnx"), "-p", str(folder / "p.qpolicy"), "--data", str(folder / "data.npz")]
    assert main([*words, "--over", "dampening=0.1..1"]) == 1
    assert "Q222" in capsys.readouterr().err


def test_nothing_to_compare_with_reject(folder: Path) -> None:
    np.savez(folder / "few.npz", x=np.zeros((5, 64), np.float32))
    with pytest.raises(QccError, match="too few") as caught:
        tune(folder / "net.onnx", folder / "p.qpolicy", [Axis("damping", (), 0.1, 1)], 2, folder / "few.npz")
    assert [one.code for one in caught.value.diagnostics] == ["Q545"]
    (folder / "p.qpolicy").write_text(POLICY + "verify { cosine >= 0.999999 }\n", encoding="utf-8")
    with pytest.raises(QccError, match="a bound of `verify` fails") as caught:
        tune(folder / "net.onnx", folder / "p.qpolicy", [Axis("damping", (), 0.1, 1)], 2, folder / "data.npz")
    assert [one.code for one in caught.value.diagnostics] == ["Q545"]
