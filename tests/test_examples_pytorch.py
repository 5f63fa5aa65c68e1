"""The PyTorch examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples" / "pytorch"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compile", "pretrained"])
def test_an_example_compiles_checks_exports_and_runs(name: str, tmp_path: Path) -> None:
    if name == "pretrained":
        pytest.importorskip("transformers")
    words = [sys.executable, str(EXAMPLES / f"{name}.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("in ONNX Runtime, without kernels") == {"compile": 2, "pretrained": 1}[name]
