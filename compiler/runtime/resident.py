"""What a session keeps in memory: what a process of its own grows by while it makes one and runs it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcc.codegen.target.scratch import scratch
from qcc.compiler.calibrate.generate import Batch

CHILD = """
import json, sys
import numpy as np
from qcc.compiler.runtime.session import Session

def kept(word):
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(word))

model, kernels, threads, feeds, names = json.loads(sys.argv[1])
with np.load(feeds) as arrays:
    given = {name: arrays[f"arr_{at}"] for at, name in enumerate(names)}
before = kept("VmRSS:")
session = Session(model, kernels or False, threads)
made = kept("VmRSS:")
session.run(session.coded(given))
print(json.dumps([made - before, kept("VmRSS:") - before, kept("VmHWM:") - before]))
"""


@dataclass(frozen=True)
class Resident:
    """Bytes that a process grew by: when the session was ``made``, when it ``ran`` once, and at ``most``."""

    made: int
    ran: int
    most: int


def resident(model: Path, library: Path | None, threads: int, feeds: Batch) -> Resident | None:
    """What a session keeps; None where the system does not tell, or inputs cannot be handed over."""
    if not Path("/proc/self/status").is_file():
        return None
    with scratch() as folder:
        arrays = folder / "feeds.npz"
        np.savez(arrays, *feeds.values())  # without their names: one may be that of an argument, as `file`
        words = json.dumps([str(model), str(library) if library else None, threads, str(arrays), list(feeds)])
        run = subprocess.run([sys.executable, "-c", CHILD, words], capture_output=True, text=True)
    if run.returncode:
        return None
    return Resident(*json.loads(run.stdout.splitlines()[-1]))
