"""How models scale over threads: each against itself on one thread, and against the first on as many.

    python -m benchmarks.threads FLOAT.onnx COMPILED.onnx ... [--threads 1,2,4,8,16] [--batch 16] [--sequence 32]
        [--rounds 15] [--ops] [--awake 100,runtime]

All models run in one process, each with the library of kernels beside it, in turns at each number of threads; the last
number is also what ONNX Runtime takes of itself where it is that of all cores. ``ms`` is the median by the clock.
``over one`` is a model's own time on one thread over it, ``of float`` the median of its time over the first model's in
the same rounds. ``path`` says what ``over one`` would be on a machine that does nothing else, as far as that can be
told on one that does: the processor time of a run on one thread, over the most that any one thread used in a run (with
the pool's spinning switched off, in sessions of their own).

With ``--awake`` each is opened several times: with threads that sleep after so many microseconds without work, as
`qcc.Session` has it (the default), or as the runtime does by itself.

With ``--ops`` it also prints what the nodes of each kind take at each number of threads, by the runtime's profile: what
does not fall from column to column is what does not scale.
"""

import argparse
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.processes.timing import machine
from qcc.compiler.bench.feeds import Wanted, feeds
from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.timing import Turns, interleaved, paired
from qcc.compiler.runtime.profile import profiled
from qcc.compiler.runtime.register import register
from qcc.compiler.runtime.session import Session
from qcc.compiler.runtime.waiting import AWAKE_US
from qcc.ir.kernel.loadable import loadable

SPIN = "session.intra_op.allow_spinning"
TASKS = Path("/proc/self/task")
TURN_S = 0.02
PATH_RUNS = 10
OPS = 12  # kinds that are listed
Opened = tuple[Path, int | None]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("models", nargs="+", type=Path)
    cores = len(os.sched_getaffinity(0))
    counts = [count for count in (1, 2, 4, 8, 16, 32) if count < cores]
    add("--threads", default=",".join(map(str, (*counts, cores))))
    add("--batch", type=int, default=16)
    add("--sequence", type=int, default=32)
    add("--rounds", type=int, default=15)
    add("--ops", action="store_true")
    add("--awake", default=str(AWAKE_US))
    given = parser.parse_args()
    threads = [int(word) for word in given.threads.split(",")]
    sizes = Wanted((given.batch,), sequence=given.sequence)
    inputs = feeds(open_model(given.models[0]).graph, sizes)[given.batch]
    print(f"# {machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}\n# python -m benchmarks.threads", flush=True)
    print(f"# {given.batch} x {given.sequence}, {given.rounds} rounds")
    awake = [None if word == "runtime" else int(word) for word in given.awake.split(",")]
    report([(model, one) for model in given.models for one in awake], threads, inputs, given.rounds)
    if given.ops:
        for model in given.models:
            report_ops(model, threads, inputs, given.rounds)


def report(models: Sequence[Opened], threads: Sequence[int], inputs: Mapping[str, np.ndarray], rounds: int) -> None:
    """A line a model, opened in one way, and number of threads."""
    width = max(len(model.name) for model, _ in models)
    print(f"{'model':{width}}    awake  threads       ms  over one  of float  path")
    alone: dict[Opened, tuple[float, float]] = {}
    for count in threads:
        sessions = [Session(model, threads=count, awake_us=awake) for model, awake in models]
        turns = Turns(rounds, TURN_S, warm=True, settle=True)
        seconds = interleaved([partial(session.run, inputs) for session in sessions], turns)
        del sessions
        for opened, own in zip(models, seconds, strict=True):
            model, awake = opened
            taken, longest = float(np.median(own)), path_s(model, count, inputs)
            one = alone.setdefault(opened, (taken, longest))
            ratio = paired(own, seconds[0]).median
            line = f"{model.name:{width}}  {awake or 'runtime':>7}  {count:7}  {taken * 1e3:7.2f}"
            line += f"  {one[0] / taken:7.2f}x  {ratio:7.2f}x"
            path = f"{one[1] / longest:.2f}x" if longest else "-"  # a system may count too coarsely for a short run
            print(f"{line}  {path}", flush=True)


def path_s(model: Path, threads: int, inputs: Mapping[str, np.ndarray]) -> float:
    """The most processor time that a thread uses in a run, where none spins."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    options.add_session_config_entry(SPIN, "0")
    if kernels_beside(model).is_file():
        register(options, loadable(kernels_beside(model)))
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    run = partial(session.run, None, dict(inputs))
    for _ in range(3):
        run()
    return float(np.median([_longest(run) for _ in range(PATH_RUNS)]))


def _longest(run: Callable[[], object]) -> float:
    before = _used()
    run()
    return max(seconds - before.get(thread, 0.0) for thread, seconds in _used().items())


def _used() -> dict[str, float]:
    """Processor seconds of each thread of this process; one may end while they are read."""
    found = {}
    for one in TASKS.iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[one.name] = int((one / "schedstat").read_text().split()[0]) / 1e9
    return found


def report_ops(model: Path, threads: Sequence[int], inputs: Mapping[str, np.ndarray], rounds: int) -> None:
    """A line a kind of nodes, with what all of it take at each number of threads."""
    library = kernels_beside(model) if kernels_beside(model).is_file() else None
    kinds: dict[str, list[float]] = {}
    for at, count in enumerate(threads):
        for node in profiled(model, library, count, dict(inputs), rounds):
            taken = kinds.setdefault(node.op, [0.0] * len(threads))
            taken[at] += node.seconds
    print(f"\n{model.name}: ms of nodes by threads\n{'':44}" + "".join(f"{count:9}" for count in threads))
    for op, taken in sorted(kinds.items(), key=lambda item: -item[1][0])[:OPS]:
        print(f"{op[:44]:44}" + "".join(f"{seconds * 1e3:9.2f}" for seconds in taken))
    print(f"{'all':44}" + "".join(f"{sum(t[at] for t in kinds.values()) * 1e3:9.2f}" for at in range(len(threads))))


if __name__ == "__main__":
    main()
