"""The machine that this process runs on, as reports name it."""

import os
import platform
from dataclasses import dataclass

from qcc.codegen.target.target import CPUINFO, cache_bytes


@dataclass(frozen=True)
class Machine:
    """A processor and what this process may use of it.

    ``cores`` are those that the process may run on, hardware threads counted each. Sizes of caches are those of one
    core, of the third cache all that it sees; 0 if unknown.
    """

    processor: str
    cores: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int


def machine() -> Machine:
    """This machine."""
    return Machine(_processor(), _cores(), *(cache_bytes(level, 0) for level in (1, 2, 3)))


def _processor() -> str:
    if CPUINFO.exists():
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
