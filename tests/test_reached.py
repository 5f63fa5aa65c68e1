"""What calibration data reaches is told before the work."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.__main__ import main
from qcc.compiler.commands import compile as command
from tests import onnx_models

BODY = (
    "g (int64[N,4] ids, float[N,4] mask, float[N,8] x) => (float[N,16] y) { e = Gather(t, ids) "
    "m = ReduceMean <axes = [1], keepdims = 0> (e) a = Add(m, x) "
    "s = ReduceMean <axes = [1]> (mask) b = Mul(a, s) y = MatMul(b, w) }"
)
WEIGHTS = {"t": onnx_models.random(50, 8), "w": onnx_models.random(8, 16)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(onnx_models.parse(BODY, WEIGHTS, opset=13), tmp_path / "m.onnx")
    ids = np.array([[1, 2, 3, 4], [4, 5, 6, 7]])
    np.savez(tmp_path / "d.npz", ids=ids, mask=np.ones((2, 4), np.float32), x=np.array([[-1] * 8, [3] * 8], np.float32))
    return tmp_path / "m.onnx"


def test_an_estimate_says_what_the_data_reaches(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(model), "--data", str(model.with_name("d.npz")), "--estimate"]) == 0
    out = capsys.readouterr().out
    assert "looks up 7 of 50 rows of a table, 14.0%, on 2 samples" in out
    assert "`mask` is 1 everywhere" in out and "`x` reaches from -1 to 3" in out
    assert "`y` is largest in " in out and "of 16 places" in out


def test_an_estimate_counts_what_is_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.qpolicy").write_text("qpolicy 1\nrule any { weights = int{3,4,8} channel }\nbudget { size <= 40% }")
    asked = ["compile", "examples/fashion/fashion-cnn.onnx", "--estimate", "--format", "json"]
    assert main([*asked, "-p", str(tmp_path / "p.qpolicy")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["measuring_seconds"] > 0 and told["seconds"] < 60  # a rate is the largest layer's, not a first call's
    assert main(asked) == 0
    assert json.loads(capsys.readouterr().out)["measuring_seconds"] == 0


def test_long_work_is_told_before_it_begins(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["compile", str(model), "--data", str(model.with_name("d.npz"))]
    assert main(asked) == 0
    assert "memory    at most" not in capsys.readouterr().err
    monkeypatch.setattr(command, "LONG_BYTES", 1)
    assert main(asked) == 0
    assert "memory    at most" in capsys.readouterr().err


def test_generated_data_reaches_nothing_that_is_told(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(model), "--estimate"]) == 0
    assert "reaches" not in capsys.readouterr().out
