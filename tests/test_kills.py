"""A run that is killed leaves the old model or the new one, whole: the benchmark's own trials, fewer of them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_killed_before_each_renaming_and_at_random() -> None:
    command = [sys.executable, "-m", "benchmarks.kills", "--kills", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "faults: 0" in done.stdout
