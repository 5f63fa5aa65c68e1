"""ONNX Runtime writes and sends nothing of its own: no file appears but what qcc is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

MODEL = '<ir_version: 8, opset_import: ["": 18]> g (float[n, 4] x) => (float[n, 4] y) { y = Relu (x) }'


@pytest.mark.slow
@pytest.mark.parametrize("words", [["compile", "m.onnx", "-q"], ["bench", "m.onnx", "m.onnx"], ["inspect", "m.onnx"]])
def test_no_file_appears_in_an_empty_home(tmp_path: Path, words: list[str]) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    onnx.save(onnx.parser.parse_model(MODEL), work / "m.onnx")
    names = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED", "XDG_CACHE_HOME", "CI", "PYTEST_CURRENT_TEST")
    environment = {name: text for name, text in os.environ.items() if name not in names}
    command = [sys.executable, "-m", "qcc", *words]
    for cache in ({}, {"XDG_CACHE_HOME": str(home / "cache")}):
        subprocess.run(command, cwd=work, env={**environment, "HOME": str(home), **cache}, check=True)
        assert list(home.rglob("*")) == []


@pytest.mark.slow
def test_a_process_that_asked_for_telemetry_keeps_it() -> None:
    code = "import os, qcc.ir.onnx.file.runtime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"
