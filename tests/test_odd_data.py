"""Data that is not finite: taken where the model makes something finite of it, and told where it does not."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.__main__ import main
from tests.onnx_models import parse, random

RULE = "qpolicy 1\nrule any {{ weights = int4 group 32{} }}\nverify {{ cosine >= 0.9 }}\n"
W = random(64, 64)
FILLED = """
g (float[n,64] x) => (float[n,64] y)
{
    odd = IsNaN (x)
    zero = Constant <value_float = 0.0> ()
    f = Where (odd, zero, x)
    y = MatMul (f, w)
}
"""
MASKED = """
g (float[n,64] x, bool[n,64] seen) => (float[n,64] y)
{
    m = MatMul (x, w)
    zero = Constant <value_float = 0.0> ()
    y = Where (seen, m, zero)
}
"""
ADDED = """
g (float[n,8,64] x, float[n,8,8] mask) => (float[n,8,64] y)
{
    q = MatMul (x, w)
    t = Transpose <perm = [0, 2, 1]> (x)
    s = MatMul (q, t)
    a = Add (s, mask)
    p = Softmax <axis = -1> (a)
    y = MatMul (p, x)
}
"""
PLAIN = "g (float[n,64] x) => (float[n,64] y) { y = MatMul (x, w) }"


def model(folder: Path, body: str) -> Path:
    path = folder / "net.onnx"
    onnx.save(parse(body, {"w": W}, opset=20), path)
    return path


def spoilt(rows: int = 64) -> np.ndarray:
    x = random(rows, 64, seed=1)
    x[5, 3], x[9, 0] = np.nan, np.inf
    return x


def feeds(body: str) -> list[dict[str, np.ndarray]]:
    if body == MASKED:
        x = spoilt()
        return [{"x": x, "seen": np.isfinite(x).all(1, keepdims=True).repeat(64, 1)}]
    if body == ADDED:
        mask = np.where(np.tri(8, dtype=bool), 0, -np.inf).astype(np.float32)
        return [{"x": random(16, 8, 64, seed=2), "mask": mask[None].repeat(16, 0)}]
    x = spoilt()
    x[9, 0] = 1
    return [{"x": x}]


@pytest.mark.sampled
@pytest.mark.parametrize("how", ["", "; rounding = gptq", "; rounding = gptq; fold = awq", "; activations = static"])
@pytest.mark.parametrize("body", [FILLED, MASKED, ADDED], ids=["filled", "masked", "added"])
def test_what_the_model_makes_finite_is_taken(tmp_path: Path, body: str, how: str) -> None:
    result = qcc.compile(model(tmp_path, body), RULE.format(how), data=feeds(body))
    assert result.passed and result.layers[0].form
    (check,) = result.verification.outputs
    assert 0.9 < check.cosine <= 1 and np.isfinite(check.sqnr)


def test_statistics_are_those_of_the_finite_rows(tmp_path: Path) -> None:
    path = model(tmp_path, MASKED)
    with_odd = qcc.compile(path, RULE.format("; rounding = gptq"), data=feeds(MASKED)).layers[0]
    assert with_odd.data is not None and (with_odd.data.rows, with_odd.data.hidden_rows) == (62, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_the_model_does_not_is_told_reject(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model(tmp_path, PLAIN)
    x = random(16, 64, seed=1)
    x[7, 3] = value
    np.savez("d.npz", x=x)
    assert main(["compile", "net.onnx", "--data", "d.npz"]) == 1
    err = capsys.readouterr().err
    assert "error[Q424]: the calibration array `x` holds NaN or infinity in sample 7" in err and "output `y`" in err
    with pytest.raises(qcc.QccError, match="Q424"):
        qcc.compile("net.onnx", data=[{"x": x}])


def test_samples_that_are_not_taken_do_not_matter(tmp_path: Path) -> None:
    path = model(tmp_path, PLAIN)
    x = random(3, 64, seed=1)
    taken = np.sort(np.random.default_rng(0).choice(3, 2, replace=False))
    x[({0, 1, 2} - set(taken.tolist())).pop()] = np.nan
    np.savez(tmp_path / "d.npz", x=x)
    policy = f'qpolicy 1\ncalibrate "{tmp_path / "d.npz"}" {{ samples = 2, seed = 0 }}\nuse "balanced"\n'
    assert qcc.compile(path, policy).passed
