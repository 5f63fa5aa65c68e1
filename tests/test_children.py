"""What a benchmark starts ends with it, whether it is asked to end or killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.processes import children

ROOT = Path(__file__).parent.parent
PATIENCE_S = 60.0  # a process that is ended is gone in milliseconds; a machine may be busy
SLEEPER = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
ALONE = """
    children.run([sys.executable, "-c", sleeper, file])
"""
IN_THREADS = """
    children.heed_sigterm()
    with ThreadPoolExecutor(1) as pool:
        try:
            list(pool.map(lambda at: children.run([sys.executable, "-c", sleeper, file]), range(3)))
        finally:
            children.stop_all()
"""


def _until(holds: Callable[[], object]) -> bool:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return False


def _is_gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # whoever inherited it has not looked yet


@pytest.mark.parametrize(
    ("body", "sent"), [(ALONE, signal.SIGKILL), (ALONE, signal.SIGTERM), (IN_THREADS, signal.SIGTERM)]
)
def test_a_child_ends_with_its_parent(body: str, sent: signal.Signals, tmp_path: Path) -> None:
    head = "import sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom benchmarks.processes import children\n"
    code = f"{head}sleeper, file = sys.argv[1:]\n{textwrap.dedent(body)}"
    file = tmp_path / "process"
    parent = subprocess.Popen([sys.executable, "-c", code, SLEEPER, str(file)], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        assert _until(lambda: file.exists() and file.read_text())
        child = int(file.read_text())
        assert not _is_gone(child)
        os.kill(parent.pid, sent)
        parent.wait(PATIENCE_S)
        assert _until(lambda: _is_gone(child))
    finally:
        parent.kill()
        parent.wait()


def test_what_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    file = tmp_path / "process"
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    with pytest.raises(subprocess.TimeoutExpired):
        children.run([sys.executable, "-c", nested, SLEEPER, file], seconds=1)
    assert not file.exists() or _until(lambda: _is_gone(int(file.read_text())))


def test_what_a_process_took_is_told() -> None:
    words = [sys.executable, "-c", "x = bytes(50_000_000); sum(range(100_000))"]
    found = children.usage(words)
    assert found.peak_mb > 50 and found.processor_s > 0 and found.seconds > 0
    with pytest.raises(subprocess.CalledProcessError):
        children.usage([sys.executable, "-c", "raise SystemExit(3)"])
