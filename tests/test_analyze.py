"""What an analysis tells of layers is what a compilation measures of them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.__main__ import main
from tests import onnx_models as models

LAYERS = 6
BODY = (
    "g (float[N,32] x) => (float[N,32] h6) { "
    + " ".join(f"[m{at}] m{at} = MatMul(h{at}, w{at}) h{at + 1} = Add(m{at}, h{at})" for at in range(LAYERS)).replace(
        "h0", "x"
    )
    + " }"
)
EXACT = 1e-9  # of a share: the same arithmetic


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual network whose layer `m4` is hard to encode, and data for it."""
    found = tmp_path_factory.mktemp("analyze")
    weights = {f"w{at}": models.random(32, 32, seed=at) / 30 for at in range(LAYERS)}
    loud = models.random(32, 32) / 4
    loud[::9] *= 12
    weights["w4"] = loud.astype(np.float32)
    onnx.save(models.parse(BODY, weights), found / "m.onnx")
    np.savez(found / "d.npz", x=np.random.default_rng(0).normal(size=(24, 32)).astype(np.float32))
    return found


@pytest.mark.slow
def test_losses_are_those_of_the_allocator_and_the_worst_comes_first(folder: Path, tmp_path: Path) -> None:
    found = qcc.analyze(folder / "m.onnx", data=folder / "d.npz", formats="int4 group 32, int3 channel")
    assert found.layers[0].name == "m4"
    assert found.formats == ("int4 group 32", "int3 channel")
    for format in found.formats:
        policy = (
            f"qpolicy 1\nrule any {{ weights = {format} | float }}\nbudget {{ size <= 60% }}\nminimize output_error"
        )
        result = qcc.compile(folder / "m.onnx", policy, data=folder / "d.npz", output=tmp_path / "o.onnx")
        lost = {row.name: row.loss for row in result.layers if row.form}
        assert lost
        told = {one.name: one.loss(format, "output_error") for one in found.layers}
        assert all(told[name] == pytest.approx(value, abs=EXACT) for name, value in lost.items())


def test_all_layers_have_a_time(folder: Path) -> None:
    found = qcc.analyze(folder / "m.onnx", data=folder / "d.npz", formats="int8")
    assert len(found.layers) == LAYERS
    assert all(one.seconds is not None and one.seconds > 0 for one in found.layers)
    assert found.seconds is not None and found.seconds > 0


def test_a_format_in_which_a_layer_is_no_smaller_has_no_entry(tmp_path: Path) -> None:
    onnx.save(
        models.parse("g (float[N,4] x) => (float[N,2] y) { y = MatMul(x, w) }", {"w": models.random(4, 2)}),
        tmp_path / "t.onnx",
    )
    (only,) = qcc.analyze(tmp_path / "t.onnx", formats="int8 group 2 scale fp32").layers
    assert only.tried == ()


def test_a_model_without_weights_has_no_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(models.parse("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", {}), tmp_path / "t.onnx")
    assert qcc.analyze(tmp_path / "t.onnx").layers == ()
    assert main(["analyze", str(tmp_path / "t.onnx")]) == 0
    assert "no layer has a weight" in capsys.readouterr().out


def test_two_metrics_agree_as_their_orders_do(folder: Path) -> None:
    found = qcc.analyze(folder / "m.onnx", data=folder / "d.npz", formats="int3", metrics=("output_error", "top_kl"))
    value = found.agreement["int3"]["top_kl"]
    orders = [[one.loss("int3", name) or 0.0 for one in found.layers] for name in found.metrics]
    ranks = [np.argsort(np.argsort(order)) for order in orders]
    assert value == pytest.approx(np.corrcoef(ranks[0], ranks[1])[0, 1], abs=EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 60])
def test_a_table_fits_and_repeated_layers_share_a_row(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("qcc.compiler.console.terminal.is_terminal", lambda _: True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["analyze", str(folder / "m.onnx"), "--data", str(folder / "d.npz")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if str(folder) not in line) <= width
    assert any(line.startswith("m{0..3,5}") for line in lines)
    assert main(["analyze", str(folder / "m.onnx"), "--data", str(folder / "d.npz"), "-v"]) == 0
    assert sum(line.startswith("m") for line in capsys.readouterr().out.splitlines()) == LAYERS


def test_json_has_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", str(folder / "m.onnx"), "--formats", "int4 group 32,bands(int4, int2, share = 20%)"]
    assert main([*words, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["origin"] == "generated" and len(told["layers"]) == LAYERS
    assert len(told["layers"][0]["formats"]) == 2


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--formats", "int4 gruop 32"], 1, "did you mean `group`"),
        (["--formats", " , "], 2, "names none"),
        (["--metric", "top_k"], 2, "did you mean `top_kl`"),
        (["--metric", "cosine"], 1, "Q360"),
        (["--jobs", "0"], 2, "at least 1"),
        (["--data", "nowhere.npz"], 1, "Q420"),
    ],
)
def test_analyze_reject(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    assert main(["analyze", str(folder / "m.onnx"), *words]) == status
    assert message in capsys.readouterr().err


def test_what_is_lost_of_a_score_is_what_a_compilation_loses_of_it(folder: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(200, 32)).astype(np.float32)
    labels = np.random.default_rng(2).integers(0, 32, 200)
    np.savez(tmp_path / "l.npz", x=x, labels=labels)
    data, judging, metrics = folder / "d.npz", tmp_path / "l.npz", ("accuracy", "output_error")
    found = qcc.analyze(folder / "m.onnx", formats="int2 channel", metrics=metrics, data=data, evaluate=judging)
    (told,) = (one.loss("int2 channel", "accuracy") for one in found.layers if one.name == "m4")
    policy = 'qpolicy 1\nrule any[name == "m4"] { weights = int2 channel }\nverify { drop(accuracy) <= 100% }\n'
    result = qcc.compile(folder / "m.onnx", policy, output=tmp_path / "o.onnx", data=data, evaluate=judging)
    (check,) = result.verification.scores
    assert told == pytest.approx(check.drop.estimate, abs=1e-6)
    assert -1 <= found.agreement["int2 channel"]["output_error"] <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "accuracy"], "Q360"),
        (["--evaluate", "l.npz"], "nothing is judged"),
        (["--metric", "acuracy"], "accuracy"),
    ],
)
def test_a_score_takes_what_tells_it_reject(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(folder / "m.onnx"), "--data", str(folder / "d.npz"), *words]) in (1, 2)
    assert message in capsys.readouterr().err
