"""Real models, as packages carry them: every ``.onnx`` below a folder, compiled, as a table.

    python -m benchmarks.packages FOLDER [--presets balanced lossless] [--data FOLDER] [--jobs 4] [--seconds 600]

Without --data nothing but the model is given; with it, a file of that folder that has the model's name and ends in
``.npz`` is the data. Jobs share the cores evenly. A model that takes longer than the seconds is told so and left.
No compilation outlives the command.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from benchmarks.processes import children
from benchmarks.processes.timing import machine

PRESETS = ("balanced", "lossless")
WORDS = {0: "ok", 3: "bound fails"}
COLUMNS = ("file", "preset", "bytes before", "after", "reached", "worst cosine", "worst SQNR", "outcome", "seconds")


def row(path: Path, preset: str, data: Path | None, seconds: float, cores: Sequence[int]) -> list[str]:
    """One line of the table."""
    start = [path.name, preset, f"{path.stat().st_size:,}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "qcc", "compile", str(path), "-p", preset, "--format", "json"]
        command += ["-o", f"{folder}/out.onnx", *(["--data", str(data)] if data else [])]
        try:
            done = children.run(command, seconds, cores)
        except subprocess.TimeoutExpired:
            return [*start, "", "", "", "", f"over {seconds:g} s", ""]
    found = json.loads(done.stdout or "{}")
    outcome = WORDS.get(done.returncode, f"exit {done.returncode}") + (", with data" if data else "")
    if "output_bytes" not in found:
        codes = [one.get("code", "") for one in found.get("diagnostics", [])]
        return [*start, "", "", "", "", " ".join([outcome, *codes]), ""]
    outputs = found["verification"]["outputs"]
    noise = [one["sqnr"] for one in outputs if one["sqnr"] is not None]
    share = found["reach"]["reached_bytes"] / found["reach"]["total_bytes"]
    cosine = f"{min((one['cosine'] for one in outputs), default=1):.5f}"
    sqnr = f"{min(noise):.1f} dB" if noise else "exact"
    taken = f"{sum(found['seconds'].values()):.0f}"
    return [*start, f"{found['output_bytes']:,}", f"{share:.1%}", cosine, sqnr, outcome, taken]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--data", type=Path, help="a folder of .npz files, named as the models")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600)
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    shares: SimpleQueue[list[int]] = SimpleQueue()
    for at in range(args.jobs):
        shares.put(cores[at % len(cores) :: args.jobs] or cores)

    def work(path: Path, preset: str) -> list[str]:
        share = shares.get()
        try:
            data = args.data / f"{path.stem}.npz" if args.data else None
            return row(path, preset, data if data and data.is_file() else None, args.seconds, share)
        finally:
            shares.put(share)

    print(f"# {machine()}\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    pairs = [(path, preset) for path in sorted(args.folder.rglob("*.onnx")) for preset in args.presets]
    children.heed_sigterm()
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            for found in pool.map(lambda pair: work(*pair), pairs):
                print(f"| {' | '.join(found)} |", flush=True)
        finally:
            children.stop_all()  # where this is interrupted; else none is left


if __name__ == "__main__":
    main()
