"""`qcc targets` and the ceilings that it measures."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from qcc.__main__ import main
from qcc.codegen.cpu.ceilings import ceilings
from qcc.codegen.cpu.processors.processors import PROCESSORS, VNNI, native
from qcc.codegen.target import machine
from qcc.codegen.target.ceiling import Ceiling, Ceilings
from qcc.codegen.target.find import targets
from tests.kernel_files import needs_tvm


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "qcc"


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["targets", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_every_target_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys)
    first, second, *_ = ([line.split()[0] for line in part.splitlines()] for part in out.split("\n\n"))
    assert first == ["target", *targets()]
    assert second == ["cpu(...)", *PROCESSORS]
    assert re.search(rf"^cpu\(native\) +{re.escape(native().name)}$", out, re.MULTILINE)
    assert "one core at most" not in out
    data = json.loads(told(capsys, "--format", "json"))
    plain, cpu, cuda, qdq = data["targets"]
    assert (qdq["name"], qdq["processors"], qdq["native"]) == ("qdq", [], None)
    assert (plain["name"], plain["processors"], plain["native"]) == ("onnxruntime", [], None)
    assert [one["name"] for one in cuda["processors"]] == ["sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90"]
    assert [one["name"] for one in cpu["processors"]] == list(PROCESSORS)
    assert (cpu["native"], cpu["ceilings"], cpu["providers"]) == (native().name, None, ["CPUExecutionProvider"])
    assert data["machine"]["cores"] >= 1
    assert {one["name"]: one["runs_here"] for one in cpu["processors"]}[native().name] is True


def test_what_a_lesser_machine_lacks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(VNNI))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    lines = {line.split()[0]: line for line in told(capsys).splitlines() if line}
    assert "no, lacks avx512_bf16 and 3 more" in lines["sapphire-rapids"]
    assert "no, is aarch64" in lines["armv8.2-dotprod"]
    assert " yes " in lines["avx2"]
    assert lines["cpu(native)"].endswith("avx512-vnni")


def test_a_machine_without_a_target(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert re.search(r"^cpu\(native\) +none: no native target for riscv64 yet$", told(capsys), re.MULTILINE)
    assert json.loads(told(capsys, "--format", "json"))["targets"][1]["native"] is None
    assert main(["targets", "--measure"]) == 1
    assert "Q460" in capsys.readouterr().err


def test_measuring_without_tvm_reject(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    assert main(["targets", "--measure"]) == 1
    err = capsys.readouterr().err
    assert "Q460" in err
    assert "TVM is not installed" in err
    assert "pip install 'qcc[kernels]'" in err


@needs_tvm
def test_measured_once_and_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    monkeypatch.setattr(ceilings, "TOTAL_S", 0.01)
    monkeypatch.setattr(ceilings, "LARGEST_BYTES", 1 << 24)
    assert ceilings.known() is None
    out = told(capsys, "--measure")
    made = ceilings.known()
    assert made is not None
    names = [loop.name for loop in ceilings.LOOPS if native().has(*loop.needs)]
    assert [one.name for one in made.ceilings] == names
    assert all(one.value > 0 for one in made.ceilings)
    rates = {one.name: one.value for one in made.ceilings}
    assert rates["fp32 multiply-add"] > 1  # GFLOP/s; far less means denormals
    assert [path.suffix for path in cache.iterdir()] == [".json"]
    assert told(capsys) == out  # shown from then on
    assert json.loads(told(capsys, "--format", "json"))["targets"][1]["ceilings"]["measured"] == made.measured


@pytest.mark.parametrize("text", ["", "{}", '{"measured": 1}', '{"measured": "x", "ceilings": [{"name": 1}]}', "[1]"])
def test_a_damaged_record_is_none(text: str) -> None:
    ceilings._keep(Ceilings("2026-01-01", (Ceiling("read", 1.0, "GB/s", 0.9),)))
    assert ceilings.known() is not None
    ceilings._file().write_text(text, encoding="utf-8")
    assert ceilings.known() is None


def test_another_machine_has_its_own_record(monkeypatch: pytest.MonkeyPatch) -> None:
    ceilings._keep(Ceilings("2026-01-01", ()))
    monkeypatch.setattr(ceilings, "machine", lambda: machine.Machine("another", 64, 1, 2, 3))
    assert ceilings.known() is None
