"""Give qcc what is wrong, in thousands of ways, and count what becomes of it.

    python -m benchmarks.fuzz [--scale 0.01] [--seed 0] [--jobs 2] [--only models graphs policies locks data hostile]
    python -m benchmarks.fuzz --only models --case 123

Mutated ONNX files go through three presets, drawn graphs through all exact passes, and mutated policies, locks and
calibration data through the commands that read them. Each case runs in a process of its own with limits of time and
memory. What comes out with exit status 0 is run beside the original on data that qcc did not see. Every case follows
from the seed and its number; --case runs one and shows what it printed. Not one may end in exit 70 (a bug in qcc), a
signal, a hang, a wrong result that passes as right, or files left behind.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto

from benchmarks import fuzz_inputs
from benchmarks.fuzz_graphs import drawn
from benchmarks.fuzz_models import FASHION, mutated, seeds
from benchmarks.timing import machine
from qcc.compiler.commands.cli import BUG, INPUT
from qcc.compiler.commands.cli import run as command

PRELOADED = (
    *(
        "qcc.compiler.commands.compile",
        "qcc.compiler.commands.check",
        "qcc.compiler.compile",
        "qcc.compiler.report.lock",
    ),
    *("qcc.compiler.report.console", "onnxscript"),
)
"""What every case needs: loaded once, before processes part."""
LIMIT_S = 60
MEMORY_BYTES = 12 << 30  # of addresses, which the runtime reserves freely
EXACT = "lossless"
NOISE_DB = {"balanced": 15.0, "tiny": 3.0}
"""What passes verification keeps more than this of the signal on other data, or it is wrong."""
EXACT_ERROR = 1e-4
"""Of the largest value at an output, as the exact passes promise."""
FAULTS = ("exit 70", "signal", "hang", "wrong", "leftovers", "harness")
CODE = re.compile(r"(?:error|warning)\[(Q\d{3})\]")
ALLOWED = re.compile(r"out\.(onnx|lock|html|kernels\.so)$|out\.[\w.]*onnx_data[\w.]*$|out[\w.]*\.data$")


@dataclass(frozen=True)
class Kind:
    """A kind of input: how many there are, and how one is arranged in a folder, with what to run then."""

    count: int
    arrange: Callable[[int, int, Path], list[str]]
    preset: str = ""
    """What it was compiled with, if the result is to be compared."""


def main() -> None:
    """Run all cases and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--case", type=int, help="run this case alone and show what it printed")
    arguments = parser.parse_args()
    if arguments.case is not None:
        for name in arguments.only:
            print(name, *run_one(name, arguments.seed, arguments.case, show=True))
        return
    print(f"# {machine()}\n# python -m benchmarks.fuzz --scale {arguments.scale:g} --seed {arguments.seed}")
    faults = 0
    for module in PRELOADED:
        importlib.import_module(module)
    print("| input | cases | ok | diagnostics | " + " | ".join(FAULTS) + " | most frequent |")
    print("|" + " --- |" * (5 + len(FAULTS)))
    for name in arguments.only:
        count = max(1, round(KINDS[name].count * arguments.scale))
        outcomes = dict(run_all(name, arguments.seed, count, arguments.jobs))
        print(row(name, outcomes), flush=True)
        for case, (outcome, detail) in sorted(outcomes.items()):
            if outcome in FAULTS:
                faults += 1
                print(f"  {name} {case}: {outcome}: {detail}", file=sys.stderr)
    raise SystemExit(1 if faults else 0)


def row(name: str, outcomes: dict[int, tuple[str, str]]) -> str:
    """The counts of one kind of input."""
    counts = Counter(outcome for outcome, _ in outcomes.values())
    codes = Counter(detail for outcome, detail in outcomes.values() if outcome == "diagnostic")
    often = ", ".join(f"{code} {count:,}" for code, count in codes.most_common(5))
    cells = [name, *(f"{count:,}" for count in (len(outcomes), counts["ok"], counts["diagnostic"]))]
    return f"| {' | '.join([*cells, *(str(counts[one]) for one in FAULTS), often])} |"


def run_all(name: str, seed: int, count: int, jobs: int) -> Iterator[tuple[int, tuple[str, str]]]:
    """Every case's number, with its outcome and what is to say of it."""
    running: dict[int, tuple[int, Path, float]] = {}
    cases = iter(range(count))
    while True:
        for case in cases if len(running) < jobs else ():
            folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
            running[_start(name, seed, case, folder)] = (case, folder, time.monotonic() + LIMIT_S)
            if len(running) >= jobs:
                break
        if not running:
            return
        yield from _ended(running)
        time.sleep(0.002)


def run_one(name: str, seed: int, case: int, show: bool = False) -> tuple[str, str]:
    """One case's outcome, and what is to say of it."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    running = {_start(name, seed, case, folder): (case, folder, time.monotonic() + LIMIT_S)}
    while running:
        for _, outcome in _ended(running, show):
            return outcome
        time.sleep(0.002)
    raise AssertionError("a process is gone without a trace")


def _ended(running: dict[int, tuple[int, Path, float]], show: bool = False) -> Iterator[tuple[int, tuple[str, str]]]:
    for process, (case, folder, until) in list(running.items()):
        gone, status = os.waitpid(process, os.WNOHANG)
        hung = not gone and time.monotonic() > until
        if hung:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        if not gone and not hung:
            continue
        del running[process]
        yield case, ("hang", f"{LIMIT_S} s") if hung else _outcome(folder, status)
        if show:
            print((folder / "printed").read_text(errors="replace") if (folder / "printed").exists() else "")
        shutil.rmtree(folder, ignore_errors=True)


def _outcome(folder: Path, status: int) -> tuple[str, str]:
    if os.WIFSIGNALED(status):
        return "signal", signal.Signals(os.WTERMSIG(status)).name
    try:
        outcome, detail = json.loads((folder / "outcome").read_text())
    except (OSError, ValueError):
        return "harness", f"ended with {os.WEXITSTATUS(status)}"
    return outcome, detail


def _start(name: str, seed: int, case: int, folder: Path) -> int:
    process = os.fork()
    if process:
        return process
    os.setsid()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        outcome = _judged(name, seed, case, folder)
        (folder / "outcome").write_text(json.dumps(outcome))
    except BaseException as error:
        (folder / "outcome").write_text(json.dumps(("harness", f"{type(error).__name__}: {error}"[:300])))
    finally:
        os._exit(0)


def _judged(name: str, seed: int, case: int, folder: Path) -> tuple[str, str]:
    work, temporary = folder / "work", folder / "tmp"
    work.mkdir()
    temporary.mkdir()
    tempfile.tempdir = str(temporary)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.chdir(work)
    words = KINDS[name].arrange(seed, case, work)
    before = set(work.rglob("*"))
    status, printed = _run(words)
    (folder / "printed").write_text(f"qcc {' '.join(words)}\n{printed}", errors="replace")
    codes = CODE.findall(printed)
    if status == BUG:
        last = [line for line in printed.splitlines() if "Error" in line or "internal" in line]
        return "exit 70", " ".join([*codes[:1], *last[-1:]])[:300]
    left = [one for one in set(work.rglob("*")) - before if status or not ALLOWED.search(one.name)]
    left += list(temporary.iterdir())
    if left:
        return "leftovers", ", ".join(sorted(one.name for one in left))[:300]
    if status == 0:
        wrong = _compared(work / "m.onnx", work / "out.onnx", KINDS[name].preset, seed + case)
        return ("wrong", wrong) if wrong else ("ok", "")
    if not codes or status not in (INPUT, 2, 3):
        return "harness", f"exit {status} without a diagnostic: {printed.strip()[:200]}"
    return "diagnostic", codes[0]


def _run(words: list[str]) -> tuple[int, str]:
    os.environ["QCC_DEBUG"] = "1"
    printed = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(printed):
        status = command(words)
    return status, printed.getvalue()


def _compared(before: Path, after: Path, preset: str, seed: int) -> str:
    """How two models differ on data that qcc did not see; empty if they do not, or if it cannot be said."""
    if not preset or not after.exists():
        return ""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    plain = onnxruntime.SessionOptions()
    plain.log_severity_level = 4
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        first = onnxruntime.InferenceSession(str(before), options)
        again = onnxruntime.InferenceSession(str(before), plain)
        feeds = _feeds(first, np.random.default_rng(seed))
        wanted, floor = first.run(None, feeds), again.run(None, feeds)
    except Exception:  # the original does not run on such data, so nothing can be said
        return ""
    try:
        found = onnxruntime.InferenceSession(str(after), options).run(None, feeds)
    except Exception as error:
        return f"the original runs, the result does not: {error}"[:300]
    for one, same, other in zip(wanted, floor, found, strict=True):
        said = _differ(np.asarray(one), np.asarray(same), np.asarray(other), preset)
        if said:
            return said
    return ""


def _differ(one: np.ndarray, same: np.ndarray, other: np.ndarray, preset: str) -> str:
    if one.dtype.kind != "f" or one.shape != same.shape or not one.size:
        return "" if one.shape == other.shape or one.shape != same.shape else f"shape {one.shape} became {other.shape}"
    if one.shape != other.shape:
        return f"shape {one.shape} became {other.shape}"
    if not np.isfinite(one).all() or not np.isfinite(same).all():
        return (
            "" if (np.isfinite(one) == np.isfinite(other)).all() or preset != EXACT else "other places are not finite"
        )
    if not np.isfinite(other).all():
        return "the result is not finite"
    a, b = one.astype(np.float64), other.astype(np.float64)
    scale = float(np.abs(a).max())
    rounding = float(np.abs(a - same).max())
    error = float(np.abs(a - b).max())
    if preset == EXACT:
        return f"off by {error / scale:.1e} of the largest value" if error > EXACT_ERROR * scale + 10 * rounding else ""
    power, noise = float(np.square(a).mean()), float(np.square(a - b).mean())
    if noise <= 100 * rounding**2 or noise == 0 or power == 0:
        return ""
    ratio = 10 * np.log10(power / noise)
    return f"{ratio:.1f} dB" if ratio < NOISE_DB[preset] else ""


def _feeds(session: onnxruntime.InferenceSession, rng: np.random.Generator) -> dict[str, np.ndarray]:
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
    feeds = {}
    sizes: dict[str, int] = {}
    for one in session.get_inputs():
        free = (sizes.setdefault(str(dim), 2 + len(sizes)) for dim in one.shape if not isinstance(dim, int))
        shape = [dim if isinstance(dim, int) else next(free) for dim in one.shape]
        if one.type in kinds:
            feeds[one.name] = rng.standard_normal(shape).astype(kinds[one.type])
        elif one.type == "tensor(bool)":
            feeds[one.name] = rng.random(shape) < 0.5
        else:
            feeds[one.name] = rng.integers(0, 4, shape).astype(one.type.removeprefix("tensor(").removesuffix(")"))
    return feeds


def _random(name: str, seed: int, case: int) -> random.Random:
    return random.Random(f"{name} {seed} {case}")


def _model(preset: str) -> Callable[[int, int, Path], list[str]]:
    def arrange(seed: int, case: int, folder: Path) -> list[str]:
        (folder / "m.onnx").write_bytes(mutated(list(_seeds().values()), _random("models", seed, case)))
        return ["compile", "m.onnx", "-p", preset, "-o", "out.onnx"]

    return arrange


def _graph(seed: int, case: int, folder: Path) -> list[str]:
    (folder / "m.onnx").write_bytes(drawn(_random("graphs", seed, case)).SerializeToString())
    return ["compile", "m.onnx", "-p", EXACT, "-o", "out.onnx"]


def _policy(seed: int, case: int, folder: Path) -> list[str]:
    (folder / "p.qpolicy").write_bytes(fuzz_inputs.policy(_random("policies", seed, case)))
    return ["check", "p.qpolicy"]


def _lock(seed: int, case: int, folder: Path) -> list[str]:
    shutil.copy(FASHION, folder / "m.onnx")
    (folder / "p.lock").write_bytes(fuzz_inputs.lock(_good_lock(), _random("locks", seed, case)))
    return ["compile", "m.onnx", "--plan", "p.lock", "-o", "out.onnx"]


def _data(seed: int, case: int, folder: Path) -> list[str]:
    shutil.copy(FASHION, folder / "m.onnx")
    (folder / "d.npz").write_bytes(fuzz_inputs.data(_random("data", seed, case)))
    return ["compile", "m.onnx", "--data", "d.npz", "-o", "out.onnx"]


def _hostile(_: int, case: int, folder: Path) -> list[str]:
    shutil.copy(FASHION, folder / "m.onnx")
    return fuzz_inputs.hostile(case, folder, FASHION.read_bytes())


@cache
def _seeds() -> dict[str, ModelProto]:
    return seeds()


@cache
def _good_lock() -> str:
    """A lock file of the example, made in a process of its own: the runtime's threads do not live through a fork."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.onnx"
        process = os.fork()
        if not process:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                os._exit(command(["compile", str(FASHION), "-p", "balanced", "-o", str(out), "-q"]))
        os.waitpid(process, 0)
        return out.with_suffix(".lock").read_text()


KINDS = {
    "models": Kind(3000, _model(EXACT), EXACT),
    "models balanced": Kind(3000, _model("balanced"), "balanced"),
    "models tiny": Kind(3000, _model("tiny"), "tiny"),
    "graphs": Kind(1000, _graph, EXACT),
    "policies": Kind(5000, _policy),
    "locks": Kind(300, _lock),
    "data": Kind(300, _data),
    "hostile": Kind(60, _hostile),
}

if __name__ == "__main__":
    main()
