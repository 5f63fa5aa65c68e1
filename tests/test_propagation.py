"""Where errors come from: the parts add up to what was measured, and are what they are called."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.__main__ import main
from qcc.compiler.propagation.parts import PartSums
from qcc.compiler.propagation.trace import propagation
from qcc.dsl.diagnostics.report import QccError
from tests import onnx_models as models

ADDS_UP = 0.01  # of the noise that was measured
SAME = 1e-5  # of a share: float32 sums
BODY = (
    "g (float[N,32] x) => (float[N,256] y) { a = MatMul(x, u) b = Tanh(a) c = MatMul(b, v) d = Add(c, x) e = Tanh(d) "
    "y = MatMul(e, w) }"
)
WEIGHTS = {"u": models.random(32, 64) / 4, "v": models.random(64, 32) / 8, "w": models.random(32, 256) / 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("propagation")
    onnx.save(models.parse(BODY, WEIGHTS, opset=21), found / "m.onnx")
    np.savez(found / "d.npz", x=models.random(24, 32))
    return found


@pytest.mark.parametrize("activations", ["", "; activations = static"])
def test_parts_add_up_to_what_was_measured(folder: Path, activations: str) -> None:
    text = f"qpolicy 1\nrule any {{ weights = int8 channel{activations} }}\n"
    found = propagation(folder / "m.onnx", text, data=folder / "d.npz")
    assert [one.weight for one in found.layers] and found.gap <= ADDS_UP
    assert all(one.measured > 0 and one.loss is not None for one in found.layers)


def test_a_layer_alone_errs_of_its_own(folder: Path) -> None:
    text = "qpolicy 1\nrule linear[out == 256] { weights = int4 channel }"
    found = propagation(folder / "m.onnx", text, data=folder / "d.npz")
    (layer,) = found.layers
    assert layer.own == pytest.approx(layer.measured, abs=SAME) and layer.carried == layer.interacting == 0
    assert layer.loss == pytest.approx(layer.alone, rel=0.05)  # it makes the output, of which signal is what varies


def test_what_comes_before_is_carried(folder: Path) -> None:
    found = propagation(folder / "m.onnx", "qpolicy 1\nrule any { weights = int4 channel }", data=folder / "d.npz")
    first, *others = found.layers
    assert first.carried == 0 and first.gain == 0
    assert all(one.carried > 0 and one.gain > 0 for one in others)


def test_a_layer_is_foretold_to_lose_what_its_block_and_those_behind_make_of_its_error(folder: Path) -> None:
    """Where one piece makes the outputs, that is what is measured there; and a scale on the way changes nothing."""
    policy = "qpolicy 1\nrule any { weights = int4 channel }"
    found = propagation(folder / "m.onnx", policy, data=folder / "d.npz")
    assert all(one.foretold is not None and one.loss is not None for one in found.layers)
    assert found.layers[-1].foretold == pytest.approx(found.layers[-1].loss, rel=0.3)  # channels differ in size
    assert found.agreement["foretold"] == pytest.approx(1)


def test_what_stands_in_several_blocks_is_not_foretold(tmp_path: Path) -> None:
    """A weight that two blocks share."""
    body = (
        "g (float[N,32] x) => (float[N,32] y) { a = MatMul(x, u) b = Tanh(a) c = MatMul(b, v) d = Add(c, x) "
        "e = MatMul(d, u) f = Tanh(e) h = MatMul(f, w) y = Add(h, d) }"
    )
    weights = {"u": models.random(32, 64) / 4, "v": models.random(64, 32) / 8, "w": models.random(64, 32, seed=3) / 8}
    onnx.save(models.parse(body, weights, opset=21), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=models.random(24, 32))
    found = propagation(tmp_path / "m.onnx", "qpolicy 1\nrule any { weights = int4 channel }", data=tmp_path / "d.npz")
    told = {one.weight: one.foretold for one in found.layers}
    assert told["u"] is None and sum(one is not None for one in told.values()) == 2, told


def test_outliers_are_told() -> None:
    plain, loud = models.random(64, 256), models.random(64, 256)
    loud[:, 3] *= 100
    told = []
    for x in (plain, loud):
        sums = PartSums()
        sums.add(x, x, (x, x, x, x), x)
        told.append(sums.told("a", "a"))
    assert told[0].kurtosis == pytest.approx(3, abs=0.2)  # of 16,384 draws of a normal distribution
    assert told[1].kurtosis > 20 and told[1].peak > 10 * told[0].peak


def test_a_lock_says_what_to_trace(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes((folder / "m.onnx").read_bytes())
    text = "qpolicy 1\nrule any { weights = int4 group 32 }"
    qcc.compile(model, text, data=folder / "d.npz", output=tmp_path / "o.onnx")
    asked = ["report", str(tmp_path / "o.lock"), "--propagation", "--data", str(folder / "d.npz")]
    assert main([*asked, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gap"] <= ADDS_UP and len(told["layers"]) == 3 and "alone" in told["agreement"]
    assert main([*asked, "--no-losses"]) == 0
    assert "output loss" not in capsys.readouterr().out


def test_nothing_to_trace_reject(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(QccError) as caught:
        propagation(folder / "m.onnx", "qpolicy 1\nrule any { keep }", data=folder / "d.npz")
    assert caught.value.diagnostics[0].code == "Q661"
    for words in (["a.lock", "b.lock", "--propagation"], ["a.lock"], ["a.lock", "b.lock", "--model", "m.onnx"]):
        assert main(["report", *words]) == 2
    assert "two locks are compared" in capsys.readouterr().err
