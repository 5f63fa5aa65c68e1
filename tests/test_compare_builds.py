"""`qcc report A.lock B.lock` tells what differs, and nothing else."""

import json
from pathlib import Path

import onnx
import pytest

from qcc.__main__ import main
from tests import onnx_models as models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model under two policies, the first one twice."""
    found = tmp_path_factory.mktemp("builds")
    nodes = "a = MatMul(x, w0) t = Tanh(a) b = MatMul(t, w1) y = MatMul(b, head)"
    weights = {name: models.random(64, 64, seed=at) for at, name in enumerate(("w0", "w1", "head"))}
    onnx.save(models.parse(f"g (float[N,64] x) => (float[N,64] y) {{ {nodes} }}", weights), found / "m.onnx")
    for name, policy in {
        "a": "rule any { weights = int8 channel }",
        "b": "rule any { weights = int8 channel }",
        "c": 'rule any { weights = int4 group 32 }\nrule any[name ~ "*head*"] { keep }',
    }.items():
        (found / "p.qpolicy").write_text(f"qpolicy 1\n{policy}\n", encoding="utf-8")
        words = [
            "compile",
            str(found / "m.onnx"),
            "-p",
            str(found / "p.qpolicy"),
            "-o",
            str(found / f"{name}.onnx"),
            "-q",
        ]
        assert main(words) == 0
    return found


def _compared(folder: Path, before: str, after: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["report", str(folder / f"{before}.lock"), str(folder / f"{after}.lock"), "--format", "json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_alike(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _compared(folder, "a", "b", capsys)
    assert (found["layers"], found["made_of"], found["same_layers"], found["identical"]) == ([], [], 3, True)


def test_alike_in_form_and_not_in_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is stored alike need not be the same: another library may round otherwise, a layer may be folded."""
    content = json.loads((folder / "b.lock").read_text(encoding="utf-8"))
    content["output"]["sha256"] = "0" * 64
    (folder / "other.lock").write_text(json.dumps(content), encoding="utf-8")
    found = _compared(folder, "a", "other", capsys)
    assert (found["layers"], found["identical"]) == ([], False)
    for after, said in (("b", "the same, byte for byte"), ("other", "differ nevertheless")):
        assert main(["report", str(folder / "a.lock"), str(folder / f"{after}.lock")]) == 0
        assert said in capsys.readouterr().out


def test_otherwise(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _compared(folder, "a", "c", capsys)
    layers = found["layers"]
    assert isinstance(layers, list) and len(layers) == 3
    assert {one["before"].split(" ")[0] for one in layers} == {"int8"}
    assert sorted(one["after"].split(" ")[0] for one in layers) == ["int4", "int4", "kept"]
    made_of = found["made_of"]
    assert isinstance(made_of, list) and {one["name"].split(" ")[0] for one in made_of} == {"policy"}
    assert main(["report", str(folder / "a.lock"), str(folder / "c.lock")]) == 0
    out = capsys.readouterr().out
    assert "0 layers are stored alike" in out and "y cosine" in out


@pytest.mark.parametrize("content", ["", "{}", "[]", "\x00"])
def test_no_lock_reject(folder: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.lock").write_text(content, encoding="utf-8")
    assert main(["report", str(folder / "a.lock"), str(tmp_path / "x.lock")]) == 1
    assert main(["report", str(tmp_path / "none.lock"), str(folder / "a.lock")]) == 1
    assert "Q431" in capsys.readouterr().err
