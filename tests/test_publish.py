"""Outputs: what they may not be, what they keep, and that a refusal leaves all as it was."""

import errno
import json
import os
import resource
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import qcc
from qcc.compiler.files import publish, staging
from qcc.ir.errors import ModelError
from qcc.ir.model.whole_files import place, sha256

run = runpy.run_path(str(Path(__file__).with_name("test_cli.py")))["run"]
Run = Callable[..., tuple[int, str, str]]
APART = "qpolicy 1\nrule any {{ weights = {} }}\nexport {{ external_data = always }}\n"


def build(path: Path, seed: int = 0, apart: bool = False) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 128] x) => (float[n, 128] y) { y = MatMul (x, w) }'
    )
    weight = np.random.default_rng(seed).standard_normal((128, 128)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, path, save_as_external_data=apart, location=f"{path.name}.bin", size_threshold=0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "net.onnx")
    (tmp_path / "p.qpolicy").write_text(APART.format("int8 channel"), encoding="utf-8")
    (tmp_path / "q.qpolicy").write_text(APART.format("int4 group 32"), encoding="utf-8")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def data_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.onnx_data"))


@pytest.mark.slow
def test_data_is_named_by_its_content_and_replaced(folder: Path, run: Run) -> None:
    assert run("compile", "net.onnx", "-q", "-p", "p.qpolicy")[0] == 0
    (first,) = data_files(folder)
    assert first == f"net.qcc.{sha256(folder / first)[:16]}.onnx_data"
    lock = json.loads((folder / "net.qcc.lock").read_text(encoding="utf-8"))["output"]
    assert (lock["data"], lock["data_sha256"]) == (first, sha256(folder / first))
    assert lock["sha256"] == sha256(folder / "net.qcc.onnx")
    assert run("compile", "net.onnx", "-q", "-p", "q.qpolicy")[0] == 0
    (second,) = data_files(folder)
    assert second != first
    assert run("compile", "net.onnx", "-q")[0] == 0
    assert data_files(folder) == []
    onnxruntime.InferenceSession(str(folder / "net.qcc.onnx"))


@pytest.mark.slow
def test_data_that_another_model_shares_stays(folder: Path, run: Run) -> None:
    assert run("compile", "net.onnx", "-q", "-p", "p.qpolicy")[0] == 0
    (folder / "copy.onnx").write_bytes((folder / "net.qcc.onnx").read_bytes())
    assert run("compile", "net.onnx", "-q", "-p", "q.qpolicy")[0] == 0
    assert len(data_files(folder)) == 2
    onnxruntime.InferenceSession(str(folder / "copy.onnx"))


@pytest.mark.slow
def test_data_of_a_dead_run_is_swept_with_its_folder(folder: Path, run: Run) -> None:
    script = """
import os, signal, sys
from qcc.ir.model import whole_files
real = os.replace
def replace(source, target):
    if str(target).endswith("net.qcc.onnx") and ".qcc-" not in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
os.replace = replace
from qcc.__main__ import main
main(["compile", "net.onnx", "-q", "-p", "p.qpolicy"])
"""
    subprocess.run([sys.executable, "-c", script], cwd=folder)
    assert len(data_files(folder)) == 1
    assert hidden(folder)
    assert run("compile", "net.onnx", "-q", "-p", "q.qpolicy")[0] == 0
    assert len(data_files(folder)) == 1
    assert not hidden(folder)


@pytest.mark.parametrize(
    ("output", "link", "to", "code", "said"),
    [
        ("/dev/null", None, None, "Q404", "it is a device"),
        ("pipe.onnx", None, None, "Q404", "and no file"),
        ("out.onnx", "out.onnx", "out.onnx", "Q404", "leads to itself"),
        ("out.onnx", "out.onnx", "net.onnx", "Q404", "is the input"),
        ("out.onnx", "out.onnx", "gone/x.onnx", "Q404", "no such folder"),
        ("out.onnx", "out.lock", "pipe.onnx", "Q404", "and no file"),
        ("out.onnx", "out.lock", "net.onnx", "Q450", "`out.lock` would overwrite the input `net.onnx`"),
        ("out.onnx", "out.html", "p.qpolicy", "Q450", "would overwrite the input `p.qpolicy`"),
        ("out.onnx", "out.html", "used.qpolicy", "Q450", "used.qpolicy"),
        ("out.onnx", "out.kernels.so", "x.npz", "Q450", "would overwrite the input `x.npz`"),
        ("out.onnx", "out.html", "apart.onnx.bin", "Q450", "apart.onnx.bin"),
        ("out.lock", None, None, "Q450", "would be one file"),
        ("n" * 260 + ".onnx", None, None, "Q404", "file name too long"),
    ],
)
@pytest.mark.parametrize("hard", [False, True])
def test_outputs_that_are_refused(
    folder: Path, run: Run, output: str, link: str | None, to: str | None, code: str, said: str, hard: bool
) -> None:
    os.mkfifo("pipe.onnx")
    build(folder / "apart.onnx", apart=True)
    np.savez("x.npz", x=np.zeros((2, 128), np.float32))
    Path("used.qpolicy").write_text('qpolicy 1\nuse "balanced"\n', encoding="utf-8")
    Path("p.qpolicy").write_text('qpolicy 1\nuse "used.qpolicy"\n', encoding="utf-8")
    if link and to and hard and Path(to).is_file():
        os.link(to, link)
    elif link and to:
        Path(link).symlink_to(to)
    before = content(folder)
    model = "apart.onnx" if to == "apart.onnx.bin" else "net.onnx"
    status, out, err = run("compile", model, "-o", output, "-p", "p.qpolicy", "--data", "x.npz")
    assert (status, out, err.count("error[")) == (1, "", 1)
    assert err.startswith(f"error[{code}]: ") and said in err
    assert content(folder) == before
    assert not hidden(folder)


def test_modes_and_links_are_kept(folder: Path, run: Run) -> None:
    (folder / "store").mkdir()
    real = folder / "store" / "real.onnx"
    real.write_bytes(b"old")
    real.chmod(0o640)
    Path("out.onnx").symlink_to("store/real.onnx")
    (folder / "out.html").write_text("old", encoding="utf-8")
    (folder / "out.html").chmod(0o604)
    mask = os.umask(0o027)
    try:
        assert run("compile", "net.onnx", "-q", "-o", "out.onnx", "-p", "p.qpolicy")[0] == 0
    finally:
        os.umask(mask)
    assert (folder / "out.onnx").is_symlink()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (real, folder / "out.html", folder / "out.lock")}
    assert modes == {"real.onnx": 0o640, "out.html": 0o604, "out.lock": 0o640}
    onnxruntime.InferenceSession("out.onnx")
    assert [path.name for path in (folder / "store").iterdir()] == ["real.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "limit"), [("p.qpolicy", 0), ("p.qpolicy", 6_000), ("balanced", 6_000), ("balanced", 20_000)]
)
def test_a_full_disk(folder: Path, policy: str, limit: int) -> None:
    """A limit on the size of files stands in for the disk's: 6 kB hold the report, 20 kB some of the weights."""
    before = content(folder)
    done = subprocess.run(
        [sys.executable, "-m", "qcc", "compile", "net.onnx", "-q", "-p", policy],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    if done.returncode == 0:
        return  # it fits
    assert (done.returncode, done.stderr.count("error[")) == (1, 1), done.stderr
    assert "Q404" in done.stderr or "Q409" in done.stderr
    assert content(folder) == before
    assert not hidden(folder)


def test_a_text_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies, pictures and indexes go through one door: the user's path is told, and no temporary one."""

    def fails(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    (tmp_path / "p.qpolicy").write_text("old", encoding="utf-8")
    monkeypatch.setattr(staging, "place", fails)
    with pytest.raises(ModelError) as caught:
        staging.write_whole(tmp_path / "p.qpolicy", "new")
    path = tmp_path / "p.qpolicy"
    assert (caught.value.code, caught.value.message) == (
        "Q409",
        f"cannot write `{path}`: no space left on device",
    )
    assert [one.name for one in tmp_path.iterdir()] == ["p.qpolicy"] and path.read_text(encoding="utf-8") == "old"


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("at", range(4))
def test_a_refusal_between_two_renames_leaves_all_as_it_was(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    assert run("compile", "net.onnx", "-q", "-p", "p.qpolicy")[0] == 0
    before, count = content(folder), 0

    def fails(source: Path, target: Path) -> None:
        nonlocal count
        count += 1
        if count == at + 1:
            raise OSError(errno.EIO, "Input/output error")
        place(source, target)

    monkeypatch.setattr(publish, "place", fails)
    status, _, err = run("compile", "net.onnx", "-q", "-p", "q.qpolicy")
    assert (status, err.count("error[Q404]")) == (1, 1)
    assert content(folder) == before


def test_a_folder_that_refuses(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> str:
        raise OSError(errno.EROFS, "Read-only file system", "out.onnx")

    monkeypatch.setattr("tempfile.mkdtemp", refuses)
    status, _, err = run("compile", "net.onnx", "-q")
    assert (status, err) == (1, "error[Q404]: cannot write `net.qcc.onnx`: Read-only file system\n")


@pytest.mark.parametrize("how", ["replaced", "written"])
def test_an_input_that_changes_meanwhile(folder: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(*_: object) -> str:
        build(folder / "other.onnx", seed=1)
        if how == "replaced":
            (folder / "other.onnx").rename(folder / "net.onnx")
        else:
            (folder / "net.onnx").write_bytes((folder / "other.onnx").read_bytes())
        return ""

    monkeypatch.setattr("qcc.compiler.report.publish_result.render_html", render)
    with pytest.raises(qcc.QccError, match="changed while it was compiled"):
        qcc.compile("net.onnx")
    assert not (folder / "net.qcc.onnx").exists()


def test_an_input_that_is_only_touched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(*_: object) -> str:
        os.utime("net.onnx")
        return ""

    monkeypatch.setattr("qcc.compiler.report.publish_result.render_html", render)
    assert qcc.compile("net.onnx").written
