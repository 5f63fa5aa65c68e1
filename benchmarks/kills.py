"""What a killed run leaves: the old model or the new one, whole, with its data, its library and its lock.

``python -m benchmarks.kills`` compiles a small model, external data and kernels included, under one policy over the
output of another, and kills the run: before each renaming and removal in turn, and at random moments. After each kill
the output must load and compute exactly what the old file or the new one does, with the library beside it up to what
kernels round; the next run must find nothing left of the dead one. Every run is a fork of one process, so that a kill
costs no start.
"""

import argparse
import json
import os
import pickle
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.processes.timing import machine
from qcc.compiler.compile import compile
from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.measure import time_model
from qcc.compiler.runtime.session import Session
from qcc.ir.model.whole_files import sha256

SIZE, ROWS = 256, 4
KERNEL_TOLERANCE = 0.02  # of the largest value: kernels round activations to 8 bits
POLICIES = {
    name: f"qpolicy 1\ntarget cpu\nrule any {{ weights = {format} }}\nexport {{ external_data = always; rows = 1 }}\n"
    for name, format in {"old": "int8 group 32", "new": "int4 group 32"}.items()
}
MOST_CALLS = 1000
CALLS = ("replace", "unlink", "link")


@dataclass
class Counts:
    """What was found after the kills."""

    old: int = 0
    new: int = 0
    libraries: int = 0
    finished: int = 0
    faults: list[str] = field(default_factory=list)


def in_child(work: Callable[[], Any]) -> Any:
    """Do work in a fork of this process; its result, or None where it was killed."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(work(), pipe)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(data) if data else None


def build(folder: Path) -> None:
    """The model, two products, and the policies."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> g (float[n, {SIZE}] x) => (float[n, {SIZE}] y) '
        "{ h = MatMul (x, a) r = Relu (h) y = MatMul (r, b) }"
    )
    draw = np.random.default_rng(0)
    for name in "ab":
        weight = draw.standard_normal((SIZE, SIZE)).astype(np.float32) / SIZE**0.5
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    onnx.save(model, folder / "net.onnx")
    for name, text in POLICIES.items():
        (folder / f"{name}.qpolicy").write_text(text, encoding="utf-8")


def run(folder: Path, policy: str) -> bool:
    """Compile in this process."""
    return compile(folder / "net.onnx", folder / f"{policy}.qpolicy", output=folder / "out.onnx").written


def dying(folder: Path, call: int) -> bool:
    """Compile, and be killed before the call of that number that renames, removes or links; true if it came to none."""
    count = 0

    def watched(real: Callable[..., None]) -> Callable[..., None]:
        def step(*args: Any, **words: Any) -> None:
            nonlocal count
            count += 1
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*args, **words)

        return step

    for name in CALLS:
        setattr(os, name, watched(getattr(os, name)))
    return run(folder, "new")


def killed_before(folder: Path, call: int) -> bool:
    """Let a child die at that call; true if it came to its end."""
    return in_child(lambda: dying(folder, call)) is not None


def outputs(path: Path, kernels: bool) -> np.ndarray:
    """What a model computes."""
    x = np.random.default_rng(1).standard_normal((ROWS, SIZE)).astype(np.float32)
    return Session(path, kernels=kernels, threads=1).run({"x": x})["y"]


def state(folder: Path, wanted: dict[str, np.ndarray]) -> str:
    """Whose the output is, and `+` where a library serves it; raises where it is nobody's."""
    path = folder / "out.onnx"
    found = outputs(path, kernels=False)
    whose = next((name for name, array in wanted.items() if np.array_equal(array, found)), None)
    if whose is None:
        raise ValueError("computes neither the old nor the new")
    locked = json.loads((folder / "out.lock").read_text(encoding="utf-8"))["output"]["sha256"] == sha256(path)
    if whose == "new" and not locked:
        raise ValueError("a new model without its lock")
    if not kernels_beside(path).exists():
        return whose
    error = float(np.abs(outputs(path, kernels=True) - found).max() / np.abs(found).max())
    if error > KERNEL_TOLERANCE:
        raise ValueError(f"with its library it is off by {error:.1%}")
    return f"{whose}+"


def leftovers(folder: Path) -> list[str]:
    """What is there that a finished run leaves nothing of."""
    names = [path.name for path in folder.iterdir()]
    data = [name for name in names if name.endswith(".onnx_data")]
    return [name for name in names if name.startswith(".")] + (data if len(data) != 1 else [])


def judged(work: Callable[[], str]) -> str:
    """The result, or what went wrong."""
    try:
        return work()
    except Exception as error:
        return f"!{type(error).__name__}: {error}"


def trial(folder: Path, wanted: dict[str, np.ndarray], kill: Callable[[], bool], name: str, counts: Counts) -> bool:
    """Start from the old output, kill a run to the new one, and look; true if the run came to its end."""
    in_child(lambda: run(folder, "old"))
    if left := leftovers(folder):
        counts.faults.append(f"{name}: left over before it: {left}")
    finished = kill()
    found = in_child(lambda: judged(lambda: state(folder, wanted)))
    if found is None or found.startswith("!"):
        counts.faults.append(f"{name}: {found or 'the process that loads it died'}")
        return finished
    counts.old += found.startswith("old")
    counts.new += found.startswith("new")
    counts.libraries += found.endswith("+")
    counts.finished += finished
    return finished


def killed_at_random(folder: Path, seconds: float) -> bool:
    """Compile in a child and kill it after a while; true if it was done by then."""
    child = os.fork()
    if not child:
        try:
            run(folder, "new")
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def even_race(entrants: Sequence[time_model.Entrant], _data: object, threads: int | None) -> time_model.Race:
    """Whole models timed as if all took the same, where it is not speed that is asked for."""
    return time_model.Race(threads, np.full((len(entrants), time_model.FEWEST), 1e-3), (1e-3,) * len(entrants))


def measure(folder: Path, kills: int, forced: bool) -> Counts:
    """All trials in a folder."""
    build(folder)
    wanted, duration = {}, 0.0
    for name in ("new", "old"):
        in_child(partial(run, folder, name))  # fills the caches
        start = time.perf_counter()
        in_child(partial(run, folder, name))
        duration = time.perf_counter() - start
        wanted[name] = in_child(lambda: outputs(folder / "out.onnx", kernels=False))
    counts = Counts()
    for call in range(1, MOST_CALLS if forced else 1):
        if trial(folder, wanted, partial(killed_before, folder, call), f"call {call}", counts):
            break
    draw = random.Random(0)
    killed = 0
    while killed < kills:  # runs that end before their moment do not count
        moment = draw.uniform(0, duration)
        killed += not trial(folder, wanted, partial(killed_at_random, folder, moment), f"kill {killed}", counts)
    in_child(lambda: run(folder, "old"))
    if left := leftovers(folder):
        counts.faults.append(f"left over at the end: {left}")
    return counts


def main() -> int:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="at random moments (default: 40)")
    parser.add_argument("--no-forced", action="store_true", help="leave out those before each renaming and removal")
    args = parser.parse_args()
    setattr(time_model, "race", even_race)  # noqa: B010 - most of a run's seconds, in which no file is touched
    with tempfile.TemporaryDirectory() as folder:
        counts = measure(Path(folder), args.kills, not args.no_forced)
    print(machine())
    print(
        f"kills: {counts.old + counts.new + len(counts.faults) - counts.finished}, runs that ended: {counts.finished}"
    )
    print(f"old: {counts.old}, new: {counts.new}, of them with a library: {counts.libraries}")
    print(f"faults: {len(counts.faults)}", *counts.faults, sep="\n  ")
    return 1 if counts.faults else 0


if __name__ == "__main__":
    sys.exit(main())
