"""`qcc init`: a policy that checks, fits its model, and foresees what it comes to."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.__main__ import main
from qcc.compiler.draft.first_policy import first_policy
from qcc.compiler.files.open_model import open_model
from qcc.dsl.syntax.format import format_source
from tests import onnx_models as models

CLOSE = 0.02  # of a size: names and ops of the written graph, of which only the file tells


@pytest.fixture
def model(tmp_path: Path) -> Path:
    body = (
        "g (int64[N] i, float[N,64] x) => (float[N,64] y) "
        "{ e = Gather(table, i) s = Add(e, x) a = MatMul(s, w0) t = Tanh(a) b = MatMul(t, w1) c = MatMul(b, tiny) "
        "y = MatMul(c, back) }"
    )
    weights = {
        "table": models.random(500, 64),
        "w0": models.random(64, 128, seed=1),
        "w1": models.random(128, 64, seed=2),
    }
    weights |= {"tiny": models.random(64, 1, seed=3), "back": models.random(1, 64, seed=4)}
    onnx.save(models.parse(body, weights), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_what_is_written_fits(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(model)]) == 0
    path = model.with_suffix(".qpolicy")
    text = path.read_text(encoding="utf-8")
    assert format_source(text) == text
    assert main(["check", str(path), "--model", str(model)]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "3 left to the allocator, 2 kept" in out
    assert "the arrays `i`, `x`" in text


def test_sizes_are_those_of_the_files(model: Path, tmp_path: Path) -> None:
    told = re.findall(r"#   (\w+ (?:channel|group 32)) +([\d.]+) kB", first_policy(open_model(model)))
    assert len(told) == 5
    for format, size in (told[0], told[2]):
        policy = f"rule any {{ weights = {format} }}"
        result = qcc.compile(model, policy, output=tmp_path / "out.onnx")
        rest = result.output_bytes - sum(row.size_bytes for row in result.layers)
        stored = sum(min(row.size_bytes, row.original_bytes) for row in result.layers)
        assert abs(1e3 * float(size) - stored - rest) < CLOSE * model.stat().st_size


@pytest.mark.slow
def test_what_is_written_compiles(model: Path, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    np.savez(tmp_path / "d.npz", i=np.arange(40), x=drawn)
    assert main(["init", str(model), "--data", str(tmp_path / "d.npz")]) == 0
    assert main(["compile", str(model), "-p", str(model.with_suffix(".qpolicy")), "--keep-failed", "-q"]) in (0, 3)


def test_nothing_is_written_over_reject(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model.with_suffix(".qpolicy")
    path.write_text("mine\n", encoding="utf-8")
    assert main(["init", str(model)]) == 1
    assert "Q594" in capsys.readouterr().err and path.read_text(encoding="utf-8") == "mine\n"
    assert main(["init", str(model), "--force"]) == 0
    assert main(["init", str(model), "-o", "-"]) == 0
    assert capsys.readouterr().out.endswith(path.read_text(encoding="utf-8"))


def test_nothing_to_compress_reject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(models.parse("g (float[N,4] x) => (float[N,4] y) { y = Tanh(x) }", {}), tmp_path / "m.onnx")
    assert main(["init", str(tmp_path / "m.onnx")]) == 1
    assert "Q593" in capsys.readouterr().err
    assert not (tmp_path / "m.qpolicy").exists()


@pytest.mark.parametrize("words", [["."], ["/"], [".."], ["no.onnx"]])
def test_no_model_reject(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", *words]) == 1
    assert "Q400" in capsys.readouterr().err


def test_the_model_itself_reject(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = model.rename(model.with_suffix(".qpolicy"))
    before = named.read_bytes()
    assert main(["init", str(named), "--force"]) == 2
    assert "is the model itself" in capsys.readouterr().err and named.read_bytes() == before


def test_data_that_is_not_there_reject(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(model), "--data", str(model.with_name("d.npz"))]) == 1
    assert "Q420" in capsys.readouterr().err and not model.with_suffix(".qpolicy").exists()


@pytest.mark.parametrize("words", [["-o", "policy.txt"], ["--data", "../d.npz"]])
def test_what_no_policy_can_be_reject(model: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(model), *words]) == 2
    assert capsys.readouterr().err
