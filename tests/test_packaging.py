"""What is installed: a wheel has all that qcc reads, TVM is an extra, and who lacks it is told once."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READ = ("qcc/dsl/pages/Q202.md", "qcc/compiler/plan/plan.lark", "qcc/codegen/cpu/capabilities.json")
WITHOUT_TVM = """
import importlib.machinery as machinery, importlib.metadata as metadata, sys
real, version = machinery.PathFinder.find_spec, metadata.version

def find_spec(name, *rest):
    return None if name.partition(".")[0] in ("tvm", "tvm_ffi") else real(name, *rest)

def version_of(name):
    if name == "apache-tvm":
        raise metadata.PackageNotFoundError(name)
    return version(name)

machinery.PathFinder.find_spec, metadata.version = staticmethod(find_spec), version_of
from qcc.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def without_tvm(*words: str) -> "subprocess.CompletedProcess[str]":
    """The command where TVM is not installed."""
    command = [sys.executable, "-c", WITHOUT_TVM, *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_tvm_is_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not [one for one in project["dependencies"] if "tvm" in one]
    assert {one.partition("=")[0] for one in project["optional-dependencies"]["kernels"]} == {
        "apache-tvm",
        "apache-tvm-ffi",
    }


def test_who_asks_for_kernels_without_it_is_told(tmp_path: Path) -> None:
    policy = tmp_path / "p.qpolicy"
    policy.write_text("qpolicy 1\ntarget cpu\nrule linear { weights = int8 channel }\n")
    model = str(ROOT / "examples" / "fashion" / "fashion-cnn.onnx")
    run = without_tvm("compile", model, "-p", str(policy), "-o", str(tmp_path / "out.onnx"), "-q")
    assert "pip install 'qcc[kernels]'" in run.stderr and "Traceback" not in run.stderr, run.stderr
    assert run.stderr.count("qcc[kernels]") == 1


@pytest.mark.slow
def test_all_else_does_without(tmp_path: Path) -> None:
    model = str(ROOT / "examples" / "fashion" / "fashion-cnn.onnx")
    run = without_tvm("compile", model, "-o", str(tmp_path / "out.onnx"), "-q")
    assert run.returncode == 0 and (tmp_path / "out.onnx").exists(), run.stderr


@pytest.mark.slow
def test_a_wheel_has_what_is_read(tmp_path: Path) -> None:
    source = tmp_path / "source"  # building leaves a folder in it
    source.mkdir()
    for name in ("qcc", "dsl", "ir", "passes", "codegen", "compiler"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert all(name in names for name in READ)
    assert {name.partition("/")[0] for name in names if not name.startswith("qcc-")} == {"qcc"}
    policy = str(ROOT / "examples" / "fashion" / "fashion.qpolicy")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    run = subprocess.run([sys.executable, "-m", "qcc", "check", policy], cwd=tmp_path, env=env, check=False)
    assert run.returncode == 0
