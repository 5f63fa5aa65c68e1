"""Give qcc what is wrong, in thousands of ways, and count what becomes of it.

    python -m benchmarks.fuzz [--scale 0.01] [--seed 0] [--jobs 2] [--only models graphs chains policies locks data ...]
    python -m benchmarks.fuzz --part 1/4 --seconds 500 --out counts.json
    python -m benchmarks.fuzz --only models --case 123

Mutated ONNX files go through three presets, drawn graphs through all exact passes, drawn convolutions through drawn
policies of static integers and kernels, and mutated policies, locks and calibration data through the commands that
read them. Each case runs in a process of its own with limits of time and
memory. What comes out with exit status 0 is run beside the original on data that qcc did not see. Every case follows
from the seed and its number; --case runs one and shows what it printed. Not one may end in exit 70 (a bug in qcc), a
signal, a hang, a wrong result that passes as right, or files left behind.

A run that is interrupted, or whose --seconds are over, tells what it has counted. --out writes the counts into a file
after every kind and at the end: as JSON, or as the table where the name ends in ``.md``. Parts are every n-th case;
their counts add up.
"""

import argparse
import contextlib
import importlib
import io
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from onnx import ModelProto

from benchmarks.fuzz import inputs
from benchmarks.fuzz.chains import CHAIN, policy
from benchmarks.fuzz.compare import EXACT, compared
from benchmarks.fuzz.graphs import drawn, drawn_chain
from benchmarks.fuzz.models import FASHION, mutated, seeds
from benchmarks.kills import even_race
from benchmarks.processes import children
from benchmarks.processes.timing import machine
from qcc.compiler.commands.cli import BUG, INPUT
from qcc.compiler.commands.cli import run as command
from qcc.compiler.measure import time_model
from qcc.compiler.plan.catalog import schema
from qcc.dsl.load import load_policy

PRELOADED = (
    *(
        "qcc.compiler.commands.compile",
        "qcc.compiler.commands.language.check",
        "qcc.compiler.compile",
        "qcc.compiler.report.lock",
    ),
    *("qcc.compiler.report.console", "onnxscript"),
)
"""What every case needs: loaded once, before processes part."""
LIMIT_S = 60  # of processor time; by the clock SLOW times as much, since other work may hold a case up
SLOW = 5
MEMORY_BYTES = 12 << 30  # of addresses, which the runtime reserves freely
FAULTS = ("exit 70", "signal", "hang", "wrong", "leftovers", "harness")
CODE = re.compile(r"(?:error|warning)\[(Q\d{3})\]")
OTHERS = "torchinductor"  # what TVM loads of torch makes a folder for all that it will compile
ALLOWED = re.compile(r"out\.(onnx|lock|html|kernels\.so)$|out\.[\w.]*onnx_data[\w.]*$|out[\w.]*\.data$")


@dataclass(frozen=True)
class Kind:
    """A kind of input: how many there are, and how one is arranged in a folder, with what to run then."""

    count: int
    arrange: Callable[[int, int, Path], list[str]]
    preset: str = ""
    """What it was compiled with, if the result is to be compared."""


@dataclass(frozen=True)
class Running:
    """A case that runs in a process: its number, its folder, its core, and when it has hung."""

    case: int
    folder: Path
    core: int
    until: float


Outcomes = dict[int, tuple[str, str]]


def main() -> None:
    """Run all cases and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", help="the i-th of n parts of the cases")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: the cores)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no case after so long")
    parser.add_argument("--out", type=Path, help="a .json or .md file for the counts")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--case", type=int, help="run this case alone and show what it printed")
    arguments = parser.parse_args()
    if arguments.case is not None:
        for name in arguments.only:
            print(name, *run_one(name, arguments.seed, arguments.case, show=True))
        return
    for module in PRELOADED:
        importlib.import_module(module)
    if "chains" in arguments.only:
        importlib.import_module("tvm")
    load_policy(EXACT, schema())  # the grammar, and what policies are held to
    children.heed_sigterm()
    found = run_kinds(arguments)
    raise SystemExit(1 if any(faults(outcomes) for outcomes in found.values()) else 0)


def run_kinds(arguments: argparse.Namespace) -> dict[str, Outcomes]:
    """Run the kinds of input one after another; each is told when it is done, and at the end all are."""
    until = time.monotonic() + arguments.seconds
    found: dict[str, Outcomes] = {}
    print(heading(arguments), flush=True)
    for name in arguments.only:
        found[name] = {}
        whole = _filled(found[name], name, arguments, until)
        print(row(name, found[name]), flush=True)
        for case, (outcome, detail) in faults(found[name]).items():
            print(f"  {name} {case}: {outcome}: {detail}", file=sys.stderr, flush=True)
        if arguments.out:
            arguments.out.write_text(told(arguments, found), encoding="utf-8")
        if not whole:
            print(f"stopped before its end: {name}", file=sys.stderr)
            break
    return found


def _filled(outcomes: Outcomes, name: str, arguments: argparse.Namespace, until: float) -> bool:
    """Run the cases of a kind; false if it was not to its end."""
    if name == "locks":
        _good_lock()  # once, and not in every case
    part, parts = map(int, arguments.part.split("/"))
    cases = range(max(1, round(KINDS[name].count * arguments.scale)))[part - 1 :: parts]
    try:
        for case, outcome in run_all(name, arguments.seed, cases, arguments.jobs, until):
            outcomes[case] = outcome
    except KeyboardInterrupt:
        return False
    return len(outcomes) == len(cases)


def heading(arguments: argparse.Namespace) -> str:
    """What a table begins with: the machine, the command, and the columns."""
    command = f"python -m benchmarks.fuzz --scale {arguments.scale:g} --seed {arguments.seed} --part {arguments.part}"
    columns = "| input | cases | ok | diagnostics | " + " | ".join(FAULTS) + " | most frequent |"
    return f"# {machine()}\n# {command}\n{columns}\n|{' --- |' * (5 + len(FAULTS))}"


def told(arguments: argparse.Namespace, found: dict[str, Outcomes]) -> str:
    """All counts as the file given with --out holds them."""
    if arguments.out.suffix == ".md":
        return "\n".join([heading(arguments), *(row(name, outcomes) for name, outcomes in found.items())]) + "\n"
    kinds = {}
    for name, outcomes in found.items():
        counts = Counter(outcome for outcome, _ in outcomes.values())
        codes = Counter(detail for outcome, detail in outcomes.values() if outcome == "diagnostic")
        listed = {str(case): list(fault) for case, fault in faults(outcomes).items()}
        kinds[name] = {"cases": len(outcomes), "outcomes": counts, "codes": codes, "faults": listed}
    run = {"machine": machine(), "scale": arguments.scale, "seed": arguments.seed, "part": arguments.part}
    return json.dumps({**run, "kinds": kinds}, indent=1) + "\n"


def faults(outcomes: Outcomes) -> Outcomes:
    """The cases that went wrong."""
    return {case: one for case, one in sorted(outcomes.items()) if one[0] in FAULTS}


def row(name: str, outcomes: Outcomes) -> str:
    """The counts of one kind of input."""
    counts = Counter(outcome for outcome, _ in outcomes.values())
    codes = Counter(detail for outcome, detail in outcomes.values() if outcome == "diagnostic")
    often = ", ".join(f"{code} {count:,}" for code, count in codes.most_common(5))
    cells = [name, *(f"{count:,}" for count in (len(outcomes), counts["ok"], counts["diagnostic"]))]
    return f"| {' | '.join([*cells, *(str(counts[one]) for one in FAULTS), often])} |"


def run_all(
    name: str, seed: int, cases: Iterable[int], jobs: int, until: float = math.inf
) -> Iterator[tuple[int, tuple[str, str]]]:
    """Every case's number, with its outcome and what is to say of it; none is begun after a time."""
    running: dict[int, Running] = {}
    waiting = iter(cases)
    try:
        while True:
            for case in waiting if len(running) < jobs and time.monotonic() < until else ():
                running |= _begun(name, seed, case, running)
                if len(running) >= jobs:
                    break
            if not running:
                return
            yield from _ended(running)
            time.sleep(0.002)
    finally:
        _abandon(running)


def run_one(name: str, seed: int, case: int, show: bool = False) -> tuple[str, str]:
    """One case's outcome, and what is to say of it."""
    running = _begun(name, seed, case, {})
    while running:
        for _, outcome in _ended(running, show):
            return outcome
        time.sleep(0.002)
    raise AssertionError("a process is gone without a trace")


def _begun(name: str, seed: int, case: int, running: Mapping[int, Running]) -> dict[int, Running]:
    """A case's process, on the core that has the fewest: what it would start threads for, others need."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    taken = Counter(one.core for one in running.values())
    core = min(sorted(os.sched_getaffinity(0)), key=lambda core: taken[core])
    process = _start(name, seed, case, folder, core)
    return {process: Running(case, folder, core, time.monotonic() + SLOW * LIMIT_S)}


def _ended(running: dict[int, Running], show: bool = False) -> Iterator[tuple[int, tuple[str, str]]]:
    for process, one in list(running.items()):
        gone, status = os.waitpid(process, os.WNOHANG)
        hung = not gone and time.monotonic() > one.until
        if not gone and not hung:
            continue
        del running[process]
        if hung:
            _kill(process)
        outcome = ("hang", f"{SLOW * LIMIT_S} s") if hung else _outcome(one.folder, status)
        if show:
            printed = one.folder / "printed"
            print(printed.read_text(errors="replace") if printed.exists() else "")
        shutil.rmtree(one.folder, ignore_errors=True)  # before it is told, for who asked for one does not come back
        yield one.case, outcome


def _abandon(running: dict[int, Running]) -> None:
    for process, one in running.items():
        _kill(process)
        shutil.rmtree(one.folder, ignore_errors=True)


def _kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def _outcome(folder: Path, status: int) -> tuple[str, str]:
    if os.WIFSIGNALED(status):
        number = signal.Signals(os.WTERMSIG(status))
        return ("hang", f"{LIMIT_S} s") if number is signal.SIGXCPU else ("signal", number.name)
    try:
        outcome, detail = json.loads((folder / "outcome").read_text())
    except (OSError, ValueError):
        return "harness", f"ended with {os.WEXITSTATUS(status)}"
    return outcome, detail


def _start(name: str, seed: int, case: int, folder: Path, core: int) -> int:
    parent = os.getpid()
    process = os.fork()
    if process:
        return process
    os.setsid()
    try:
        children.tie(parent, [core])
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S + SLOW))
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
    left += [one for one in temporary.iterdir() if not one.name.startswith(OTHERS)]
    if left:
        return "leftovers", ", ".join(sorted(one.name for one in left))[:300]
    if status == 0:
        wrong = compared(work / "m.onnx", work / "out.onnx", KINDS[name].preset, seed + case)
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


def _chain(seed: int, case: int, folder: Path) -> list[str]:
    rng = _random("chains", seed, case)
    (folder / "m.onnx").write_bytes(drawn_chain(rng).SerializeToString())
    (folder / "p.qpolicy").write_text(policy(rng))
    setattr(time_model, "race", even_race)  # noqa: B010 - a library is written whether it gains or not
    return ["compile", "m.onnx", "-p", "p.qpolicy", "-o", "out.onnx"]


def _policy(seed: int, case: int, folder: Path) -> list[str]:
    (folder / "p.qpolicy").write_bytes(inputs.policy(_random("policies", seed, case)))
    return ["check", "p.qpolicy"]


def _lock(seed: int, case: int, folder: Path) -> list[str]:
    shutil.copy(FASHION, folder / "m.onnx")
    (folder / "p.lock").write_bytes(inputs.lock(_good_lock(), _random("locks", seed, case)))
    return ["compile", "m.onnx", "--plan", "p.lock", "-o", "out.onnx"]


def _data(seed: int, case: int, folder: Path) -> list[str]:
    shutil.copy(FASHION, folder / "m.onnx")
    (folder / "d.npz").write_bytes(inputs.data(_random("data", seed, case)))
    return ["compile", "m.onnx", "--data", "d.npz", "-o", "out.onnx"]


def _hostile(_: int, case: int, folder: Path) -> list[str]:
    shutil.copy(FASHION, folder / "m.onnx")
    return inputs.hostile(case, folder, FASHION.read_bytes())


@cache
def _seeds() -> dict[str, ModelProto]:
    return seeds()


@cache
def _good_lock() -> str:
    """A lock file of the example, made in a process of its own: the runtime's threads do not live through a fork."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.onnx"
        words = ["-m", "qcc", "compile", str(FASHION), "-p", "balanced", "-o", str(out), "-q"]
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        return out.with_suffix(".lock").read_text()


KINDS = {
    "models": Kind(3000, _model(EXACT), EXACT),
    "models balanced": Kind(3000, _model("balanced"), "balanced"),
    "models tiny": Kind(3000, _model("tiny"), "tiny"),
    "graphs": Kind(1000, _graph, EXACT),
    "chains": Kind(500, _chain, CHAIN),
    "policies": Kind(5000, _policy),
    "locks": Kind(300, _lock),
    "data": Kind(300, _data),
    "hostile": Kind(60, _hostile),
}
