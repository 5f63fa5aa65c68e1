"""`qcc doctor`: what is broken ends in an error, what is missing is told with what is lost."""

import errno
import json
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

from qcc.__main__ import main
from qcc.compiler.commands.machine import doctor


def _found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, tuple[str, str]]]:
    monkeypatch.setattr(doctor, "_unloadable", lambda name: "")
    status = main(["doctor", "--format", "json"])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] == (status == 0)
    return status, {one["name"]: (one["state"], one["told"]) for one in told["findings"]}


def test_it_looks_at_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = _found(monkeypatch, capsys)
    assert status == 0
    assert {"Python", "numpy", "C compiler", "processor", "cache", "qcc[torch]"} <= set(found)


def test_what_is_gone_or_too_old_reject(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "onnx":
            raise metadata.PackageNotFoundError(name)
        return "1.2" if name == "numpy" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    status, found = _found(monkeypatch, capsys)
    assert status == 1
    assert [found[name][0] for name in ("onnx", "numpy", "scipy")] == ["broken", "broken", "ok"]
    assert "pip install 'numpy>=2.0'" in found["numpy"][1]


def test_no_compiler_is_no_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    status, found = _found(monkeypatch, capsys)
    assert (status, found["C compiler"][0]) == (0, "missing")


def test_no_room_for_temporary_files_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A doctor that falls ill with the patient helps nobody."""

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    status, found = _found(monkeypatch, capsys)
    assert (status, found["temporary files"][0], found["C compiler"][0]) == (1, "broken", "missing")
    assert "`TMPDIR` names another" in found["temporary files"][1]


def test_a_folder_that_is_asked_for_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    status, found = _found(monkeypatch, capsys)
    assert (status, found["temporary files"][0]) == (0, "ok")
    assert f"`{tmp_path / 'none'}`, which cannot be used" in found["temporary files"][1]


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("2.0", ">=2.0", True),
        ("2.0.0", ">=2", True),
        ("1.9.9", ">=2.0", False),
        ("2.1", ">=1.2,<2", False),
        ("1.30.0", ">=1.4,<2", True),
        ("0.27.0.post1", "==0.27.0.post1", True),
        ("0.27.0", "==0.27.0.post1", False),
        ("2.13.0+cpu", ">=2.13", True),
    ],
)
def test_versions(version: str, wanted: str, fits: bool) -> None:
    assert doctor._fits(version, wanted) == fits


def test_what_does_not_load_says_why() -> None:
    assert "no_such_module" in doctor._unloadable("no_such_module")
    assert doctor._unloadable("json") == ""
