"""Processes that benchmarks start: none outlives the benchmark, however that ends."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)

_libc = ctypes.CDLL(None)
_running: set["subprocess.Popen[str]"] = set()
_stopped = False
_changing = Lock()


@dataclass(frozen=True)
class Usage:
    """What a process took: seconds by the clock and of processor time, and memory at its peak."""

    seconds: float
    processor_s: float
    peak_mb: float


def tie(parent: int, cores: Sequence[int] | None = None) -> None:
    """Let this process end when its parent does, even by SIGKILL; and run on some cores alone."""
    _libc.prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)
    if cores is not None:
        os.sched_setaffinity(0, cores)


def run(
    command: Sequence[object], seconds: float | None = None, cores: Sequence[int] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a process to its end; what it started ends with it where it takes longer than the seconds.

    Raises:
        subprocess.TimeoutExpired: it does.
        KeyboardInterrupt: `stop_all` ended it.
    """
    with _changing:
        if _stopped:
            raise KeyboardInterrupt
        child = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a group of its own, to be ended as one
            preexec_fn=partial(tie, os.getpid(), cores),
        )
        _running.add(child)
    try:
        out, err = child.communicate(timeout=seconds)
    finally:
        _running.discard(child)
        if child.returncode is None:
            _end(child)
    if _stopped:
        raise KeyboardInterrupt
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


def output(command: Sequence[object]) -> str:
    """What a process prints that must succeed; what it says of a failure is passed on.

    Raises:
        subprocess.CalledProcessError: it does not.
    """
    done = run(command)
    sys.stderr.write(done.stderr if done.returncode else "")
    done.check_returncode()
    return done.stdout


def usage(command: Sequence[object], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Usage:
    """What a process takes that must succeed.

    Raises:
        subprocess.CalledProcessError: it does not.
    """
    start, words = time.perf_counter(), list(map(str, command))
    child = subprocess.Popen(words, cwd=cwd, env=env, preexec_fn=partial(tie, os.getpid()))
    _, status, found = os.wait4(child.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), words)
    return Usage(time.perf_counter() - start, found.ru_utime + found.ru_stime, found.ru_maxrss * 1024 / 1e6)


def stop_all() -> None:
    """End what threads wait for, and begin nothing more."""
    global _stopped
    with _changing:
        _stopped = True
        for child in list(_running):
            _end(child)


def heed_sigterm() -> None:
    """Let SIGTERM interrupt this process as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _end(child: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
