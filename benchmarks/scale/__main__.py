"""A model that outgrows a machine: made, compiled under watch, killed and gone on with.

    python -m benchmarks.scale build 7B FOLDER/7b.onnx
    python -m benchmarks.scale run FOLDER/7b.onnx [--kill 0.9] [--weights 'int4 group 32']

``run`` prints what `qcc compile --estimate` said, the seconds and the peak of resident memory of the compilation,
mapped files among it, each per billion parameters, and the seconds by phase. With ``--kill`` the compilation is run
once more, killed after that share of its time, and gone on with; the bytes must be the same. What the system's cache
holds of the model's files is left there.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes.timing import machine
from benchmarks.scale.model import SIZES, build
from qcc.ir.model.whole_files import own_data, sha256

POLICY = "qpolicy 1\nrule any {{ weights = {weights} }}\n"
GIGA = 1e9


@dataclass(frozen=True)
class Compiled:
    """How a compilation went: its status, seconds, resident bytes at most, and what it printed."""

    code: int
    seconds: float
    peak_bytes: int
    text: str


def compiled(model: Path, policy: Path, out: Path, *more: str, kill_after_s: float | None = None) -> Compiled:
    """Compile in a process of its own, killed after some seconds if so many are given."""
    command = [sys.executable, "-m", "qcc", "compile", str(model), "-p", str(policy), "-o", str(out)]
    start = time.perf_counter()
    with subprocess.Popen([*command, "--format", "json", *more], stdout=subprocess.PIPE, text=True) as child:
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child.pid, signal.SIGKILL)
        text = child.stdout.read() if child.stdout else ""
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return Compiled(child.returncode, time.perf_counter() - start, used.ru_maxrss << 10, text)


def digests(out: Path) -> list[str]:
    """Of a model and its data."""
    return [sha256(path) for path in (out, *(out.with_name(name) for name in own_data(out)))]


def run(model: Path, weights: str, kill: float | None) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        policy, out = Path(folder) / "policy.qpolicy", Path(folder) / "out.onnx"
        policy.write_text(POLICY.format(weights=weights))
        told = json.loads(compiled(model, policy, out, "--estimate").text)
        billions = told["params"] / GIGA
        print(f"# {machine()}\n# {model.name}, {billions:.2f} billion parameters, {weights}", flush=True)
        print(f"said: {told['seconds']:.0f} s, {told['peak_bytes'] / GIGA:.2f} GB", flush=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        whole = compiled(model, policy, out)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        found = json.loads(whole.text)
        print(f"took: {whole.seconds:.0f} s, {whole.seconds / billions:.1f} a billion; {cpu / billions:.1f} s of CPU")
        print(f"held: {whole.peak_bytes / GIGA:.2f} GB; status {whole.code}; {found['output_bytes']:,} bytes")
        print("phases: " + ", ".join(f"{name} {taken:.0f}" for name, taken in found["seconds"].items()), flush=True)
        if kill is not None:
            _again(model, policy, out, kill, whole, billions)


def _again(model: Path, policy: Path, out: Path, kill: float, whole: Compiled, billions: float) -> None:
    """Kill another run, and let one go on."""
    wanted = digests(out)
    for path in (out, *(out.with_name(name) for name in own_data(out))):
        path.unlink()
    killed = compiled(model, policy, out, kill_after_s=kill * whole.seconds)
    rest = compiled(model, policy, out)
    same = "the same bytes" if digests(out) == wanted else "OTHER BYTES"
    print(f"killed after {killed.seconds:.0f} s (status {killed.code}); the next run took {rest.seconds:.0f} s, {same}")
    print(f"held: {rest.peak_bytes / GIGA:.2f} GB; {rest.seconds / billions:.1f} s a billion")


def main() -> None:
    """Make a model, or compile one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("build")
    one.add_argument("size", choices=SIZES)
    one.add_argument("model", type=Path)
    two = commands.add_parser("run")
    two.add_argument("model", type=Path)
    two.add_argument("--weights", default="int4 group 32")
    two.add_argument("--kill", type=float)
    args = parser.parse_args()
    if args.command == "build":
        build(args.model, SIZES[args.size])
    else:
        run(args.model, args.weights, args.kill)


if __name__ == "__main__":
    main()
