"""What is said of running without qcc is true: the Python example, the C program, what a library needs."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import qcc
from tests.kernel_files import INPUTS, OP, library, model, needs_tvm

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "deploy" / "run.py"
PAGE = ROOT / "docs" / "deployment.md"
RUNTIME = next(iter(sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))), None)
STEPS = np.arange(28 * 28, dtype=np.float32).reshape(1, 1, 28, 28) / (28 * 28)
PRINTED = 1e-5  # %g prints six digits

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def run_example(*words: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, EXAMPLE, *words], capture_output=True, text=True, check=True)


def test_the_example_needs_two_packages() -> None:
    found = list(ast.walk(ast.parse(EXAMPLE.read_text(encoding="utf-8"))))
    names = {name.name for node in found if isinstance(node, ast.Import) for name in node.names}
    assert names | {node.module for node in found if isinstance(node, ast.ImportFrom)} == {
        "sys", "pathlib", "numpy", "onnxruntime",
    }  # fmt: skip


@pytest.mark.slow
@needs_tvm
def test_the_example_runs_with_kernels(tmp_path: Path) -> None:
    path, data = model(tmp_path / "net.onnx", OP), tmp_path / "x.npz"
    library(tmp_path / "net.kernels.so", OP)
    np.savez(data, x=np.ones((3, INPUTS), np.float32))
    ended = run_example(path, data)
    assert (ended.stdout, ended.stderr) == (f"y (3, {INPUTS}) float32\n", "")


@pytest.mark.slow
def test_the_example_runs_without(tmp_path: Path) -> None:
    path = model(tmp_path / "net.onnx", OP)
    assert run_example(path).stdout == f"y (1, {INPUTS}) float32\n"
    (tmp_path / "net.kernels.so").write_bytes(b"no library")
    ended = run_example(path)
    assert ended.stdout == f"y (1, {INPUTS}) float32\n"
    assert ended.stderr.startswith("without kernels: ")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's C program, compiled against as much of the API as it uses."""
    found = re.search(r"^```c run\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    folder = tmp_path_factory.mktemp("c")
    (folder / "run.c").write_text(found[1], encoding="utf-8")
    command = ["cc", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'tests' / 'c'}", str(folder / "run.c")]
    if RUNTIME is None:
        subprocess.run([*command, "-fsyntax-only"], check=True)
        pytest.skip("this build of ONNX Runtime has no library to link to")
    subprocess.run([*command, str(RUNTIME), "-o", folder / "run"], check=True)
    return folder / "run"


def run_program(program: Path, *words: Path) -> tuple[np.ndarray, str]:
    assert RUNTIME is not None
    folders = {**os.environ, "LD_LIBRARY_PATH": str(program.parent)}
    soname = program.parent / "libonnxruntime.so.1"
    if not soname.exists():
        soname.symlink_to(RUNTIME)
    ended = subprocess.run([program, *words], capture_output=True, text=True, check=True, env=folders)
    return np.array(ended.stdout.split(), np.float32), ended.stderr


@needs_cc
def test_the_c_program_runs(program: Path, tmp_path: Path) -> None:
    path = model(tmp_path / "net.onnx", OP, image=True)
    logits, told = run_program(program, path)
    np.testing.assert_allclose(logits, STEPS.reshape(-1)[:10], atol=PRINTED)
    assert told == ""
    logits, told = run_program(program, path, tmp_path / "moved.so")
    np.testing.assert_allclose(logits, STEPS.reshape(-1)[:10], atol=PRINTED)
    assert told.startswith("without kernels: ")


@needs_cc
@needs_tvm
def test_the_c_program_runs_with_kernels(program: Path, tmp_path: Path) -> None:
    path, made = model(tmp_path / "net.onnx", OP, image=True), library(tmp_path / "net.kernels.so", OP)
    wanted = qcc.Session(path).run({"image": STEPS})["logits"][0, :10]
    logits, told = run_program(program, path, made)
    np.testing.assert_allclose(logits, wanted, rtol=PRINTED)
    assert told == ""


@needs_tvm
@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
def test_a_library_needs_the_c_library_alone(tmp_path: Path) -> None:
    made = library(tmp_path / "net.kernels.so", OP)
    told = subprocess.run(["readelf", "-d", made], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"\(NEEDED\).*\[(.*)\]", told)) <= {"libc.so.6", "libpthread.so.0"}
