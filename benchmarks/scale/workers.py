"""What several workers gain on the allocator's probes, beside what as many independent processes gain.

    python -m benchmarks.scale.workers MODEL DATA [--samples 4] [--workers 1 2 4] [--cluster]

The same policy, which leaves the format of every weight open, is compiled with each number of workers, by
``--jobs`` or, with ``--cluster``, by Dask. Only the phase that probes is timed, and all files must have the same bytes.
What the cores give: two such processes at once, of one worker each, against one alone. The runtime's own threads count
for both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.processes.timing import machine
from benchmarks.scale.__main__ import digests

POLICY = """qpolicy 1
calibrate "{data}" {{ samples = {samples} }}
rule any {{ weights = int{{4,8}} channel }}
budget {{ size <= 22% }}
minimize output_error
"""
PHASE = "measure"


def start(model: Path, policy: Path, out: Path, words: list[str]) -> subprocess.Popen[str]:
    """A compilation in a process of its own, which finds nothing that another has kept."""
    command = [sys.executable, "-m", "qcc", "compile", str(model), "-p", str(policy), "-o", str(out), *words]
    env = {**os.environ, "XDG_CACHE_HOME": str(out.parent / f"cache-{out.stem}")}
    return subprocess.Popen([*command, "--format", "json"], stdout=subprocess.PIPE, text=True, env=env)


def seconds(child: subprocess.Popen[str]) -> float:
    """What its probes took."""
    text, _ = child.communicate()
    return float(json.loads(text)["seconds"][PHASE])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--cluster", action="store_true")
    args = parser.parse_args()
    print(f"# {machine()}, {args.model.name}, {args.samples} samples", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.qpolicy"
        policy.write_text(POLICY.format(data=args.data.resolve(), samples=args.samples))

        def begin(name: str, *words: str) -> subprocess.Popen[str]:
            return start(args.model, policy, Path(folder) / f"{name}.onnx", list(words))

        alone = seconds(begin("alone"))
        both = [begin("left"), begin("right")]
        busy = 2 * alone / max(seconds(one) for one in both)
        print(f"one process {alone:.1f} s; two at once do {busy:.2f} times as much in the same time", flush=True)
        wanted = digests(Path(folder) / "alone.onnx")
        for count in args.workers:
            how = ("--cluster", f"local:{count}") if args.cluster else ("--jobs", str(count))
            taken = seconds(begin(f"workers{count}", *how))
            same = "the same bytes" if digests(Path(folder) / f"workers{count}.onnx") == wanted else "OTHER BYTES"
            gain = alone / taken
            print(
                f"{count} workers {taken:.1f} s, {gain:.2f} times as fast, {gain / busy:.2f} of that; {same}",
                flush=True,
            )


if __name__ == "__main__":
    main()
