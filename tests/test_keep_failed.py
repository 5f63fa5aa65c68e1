"""`--keep-failed`: a model whose verification fails is written under a name that tells it, and fails all the same."""

import json
import runpy
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import qcc
from qcc.compiler.files.staging import failed_path
from qcc.ir.model.whole_files import sha256

run = runpy.run_path(str(Path(__file__).with_name("test_cli.py")))["run"]
Run = Callable[..., tuple[int, str, str]]
FAILS = "qpolicy 1\nrule any { weights = int2 channel }\nverify { cosine >= 0.9999 }\n"
KEPT = {"net.failed.qcc.onnx", "net.failed.qcc.lock", "net.failed.qcc.html"}


def build(path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 256] x) => (float[n, 256] y) { y = MatMul (x, w) }'
    )
    weight = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "net.onnx")
    (tmp_path / "fails.qpolicy").write_text(FAILS, encoding="utf-8")
    (tmp_path / "holds.qpolicy").write_text(FAILS.replace("0.9999", "0.5"), encoding="utf-8")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("output", "failed"),
    [
        ("a/net.qcc.onnx", "a/net.failed.qcc.onnx"),
        ("small.onnx", "small.failed.onnx"),
        ("net.qcc.v2.onnx", "net.qcc.v2.failed.onnx"),
        ("qcc.onnx", "qcc.failed.onnx"),
        ("net", "net.failed"),
        ("net.qcc.qcc.onnx", "net.qcc.failed.qcc.onnx"),
    ],
)
def test_the_name_tells_it(output: str, failed: str) -> None:
    assert failed_path(Path(output)) == Path(failed)


@pytest.mark.slow
def test_the_file_is_kept_and_it_is_a_failure(folder: Path, run: Run) -> None:
    assert run("compile", "net.onnx", "-q", "-p", "holds.qpolicy")[0] == 0
    before = content(folder)
    status, out, err = run("compile", "net.onnx", "-p", "fails.qpolicy", "--keep-failed")
    assert status == 3
    after = content(folder)
    assert set(after) - set(before) == KEPT
    assert {name: after[name] for name in before} == before
    assert "net.failed.qcc.onnx, net.failed.qcc.lock, net.failed.qcc.html; kept although the verification failed" in out
    assert "error[Q320]" in err and "kept as `net.failed.qcc.onnx`" in err and "--keep-failed" not in err
    onnxruntime.InferenceSession("net.failed.qcc.onnx")
    lock = json.loads(after["net.failed.qcc.lock"])
    assert lock["output"]["file"] == "net.failed.qcc.onnx"
    assert lock["output"]["sha256"] == sha256(folder / "net.failed.qcc.onnx")
    assert [one["passed"] for one in lock["verification"]["bounds"]] == [False]
    page = after["net.failed.qcc.html"].decode()
    assert "verification failed, the file is kept" in page and "It failed its verification" in page
    assert "InferenceSession('net.failed.qcc.onnx')" in unescape(page)


def test_without_it_nothing_is_written_and_it_is_named(folder: Path, run: Run) -> None:
    before = content(folder)
    status, out, err = run("compile", "net.onnx", "-p", "fails.qpolicy")
    assert (status, content(folder)) == (3, before)
    assert "nothing: the verification failed" in out and "`--keep-failed` keeps the file" in err


def test_what_holds_is_written_as_ever(folder: Path, run: Run) -> None:
    assert run("compile", "net.onnx", "-q", "-p", "holds.qpolicy", "--keep-failed") == (0, "", "")
    assert not KEPT & set(content(folder))


@pytest.mark.slow
def test_quiet_tells_it_once_and_json_names_the_files(folder: Path, run: Run) -> None:
    status, out, err = run("compile", "net.onnx", "-q", "-p", "fails.qpolicy", "--keep-failed", "-o", "out.onnx")
    assert (status, out, err.count("error[")) == (3, "", 1)
    assert "kept as `out.failed.onnx`" in err and (folder / "out.failed.lock").exists()
    status, out, _ = run("compile", "net.onnx", "-p", "fails.qpolicy", "--keep-failed", "--format", "json")
    told = json.loads(out)
    assert (status, told["passed"], told["written"], told["output"]) == (3, False, True, "net.failed.qcc.onnx")
    assert told["output_bytes"] == (folder / told["output"]).stat().st_size


@pytest.mark.slow
def test_data_that_lies_apart_bears_its_name(folder: Path) -> None:
    policy = f"{FAILS}export {{ external_data = always }}\n"
    result = qcc.compile("net.onnx", policy, keep_failed=True)
    assert (result.passed, result.written) == (False, True)
    (data,) = folder.glob("*.onnx_data")
    assert result.data is not None and data.name == result.data.name == f"net.failed.qcc.{sha256(data)[:16]}.onnx_data"
    onnxruntime.InferenceSession(str(result.output))
    assert json.loads(result.lock.read_text(encoding="utf-8"))["output"]["data"] == data.name
    other = qcc.compile("net.onnx", policy.replace("int2", "int3"), keep_failed=True)
    assert [path.name for path in folder.glob("*.onnx_data")] == [other.data.name if other.data else ""]


@pytest.mark.slow
def test_a_failed_lock_can_be_repeated(folder: Path, run: Run) -> None:
    words = ("compile", "net.onnx", "-q", "-p", "fails.qpolicy", "--keep-failed")
    assert run(*words)[0] == 3
    before = (folder / "net.failed.qcc.onnx").read_bytes()
    assert run(*words, "--plan", "net.failed.qcc.lock")[0] == 3
    assert (folder / "net.failed.qcc.onnx").read_bytes() == before


@pytest.mark.parametrize("name", sorted(KEPT))
def test_no_input_is_overwritten(folder: Path, run: Run, name: str) -> None:
    """Not even where the verification holds: that is known too late."""
    (folder / name).hardlink_to(folder / "holds.qpolicy")
    before = content(folder)
    status, _, err = run("compile", "net.onnx", "-q", "-p", "holds.qpolicy", "--keep-failed")
    assert status == 1 and f"error[Q450]: the output `{name}` would overwrite the input `holds.qpolicy`" in err
    assert content(folder) == before
    assert run("compile", "net.onnx", "-q", "-p", "holds.qpolicy")[0] == 0


def test_the_model_itself_is_not_overwritten(folder: Path, run: Run) -> None:
    build(folder / "out.failed.onnx")
    before = content(folder)
    status, _, err = run("compile", "out.failed.onnx", "-q", "-p", "fails.qpolicy", "--keep-failed", "-o", "out.onnx")
    assert status == 1 and "error[Q450]: the output `out.failed.onnx` would overwrite the input" in err
    assert content(folder) == before
