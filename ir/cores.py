"""How many processors this process may use.

`os.cpu_count` counts the machine's. In a container, under ``taskset`` or a batch system, a process has fewer: by its
affinity mask, or by a quota of its control group, which only slows down whoever starts more threads than it pays for.
ONNX Runtime sees neither: by default it starts a thread for each core of the machine and pins each to its own core,
outside of the mask.
"""

import functools
import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
"""Where Linux tells control groups' limits; a container sees its own there."""


@functools.cache
def cores() -> int:
    """The processors that this process may use, at least 1: what its mask holds, or what its quota pays for."""
    known = getattr(os, "sched_getaffinity", None)
    allowed = len(known(0)) if known else os.cpu_count() or 1
    return max(1, min(allowed, quota() or allowed))


def runtime_threads() -> int:
    """A session's ``intra_op_num_threads``: 0, ONNX Runtime's own choice, where all of the machine may be used."""
    return 0 if cores() == os.cpu_count() else cores()


def quota() -> int | None:
    """The processors that the control group pays for, rounded up; None without a limit, or where none is told."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # version 2, and 1
        try:
            told = " ".join((GROUPS / file).read_text() for file in files).split()
            used, period = float(told[0]), float(told[1])
        except (OSError, ValueError, IndexError):
            continue  # "max" is no number
        if used > 0 and period > 0:
            return int(-(-used // period))
    return None
