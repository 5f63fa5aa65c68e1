"""What policies leave of a language model: perplexity on windows of tokens, with the bytes and the seconds it took.

    python -m benchmarks.perplexity MODEL --data FILE.npz --judge NAME=FILE.npz ... --policies POLICY ...

A POLICY is a file of `benchmarks/policies` by its stem, or a path. FILE.npz holds windows `[window, token]` under the
name of the model's input; it calibrates, and each NAME judges. Windows are scored one by one in plain ONNX Runtime. A
row is printed as soon as it is there, and how far a compilation is, in seconds, goes to the error output.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import qcc
from benchmarks.perplexity.nats import nats, perplexity_of
from benchmarks.processes.timing import machine, session

POLICIES = Path(__file__).parents[1] / "policies"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--judge", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--policies", nargs="*", default=[])
    parser.add_argument("--float", action="store_true", help="the model as it is, first")
    arguments = parser.parse_args()
    judges = {name: Path(path) for name, _, path in (one.partition("=") for one in arguments.judge)}
    print(f"# {machine()}\n# python -m benchmarks.perplexity {' '.join(sys.argv[1:])}")
    print(
        f"| policy | bytes | seconds | {' | '.join(judges)} |\n| --- | --- | --- |{' --- |' * len(judges)}", flush=True
    )
    if arguments.float:
        scores = (f"{perplexity(arguments.model, path):.2f}" for path in judges.values())
        print(f"| float | {arguments.model.stat().st_size:,} | | {' | '.join(scores)} |", flush=True)
    for name in arguments.policies:
        with tempfile.TemporaryDirectory() as folder:
            print(_row(name, arguments.model, arguments.data, judges, Path(folder) / "out.onnx"), flush=True)


def _row(name: str, model: Path, data: Path, judges: dict[str, Path], output: Path) -> str:
    path = Path(name) if Path(name).suffix else POLICIES / f"{name}.qpolicy"
    began, last = time.perf_counter(), [""]

    def tell(phase: str, _done: int, _total: int, detail: str) -> None:
        if phase != last[0] or phase == "learn":
            last[0] = phase
            seconds = time.perf_counter() - began
            print(f"{seconds:6.0f} s  {path.stem}: {phase} {detail}", file=sys.stderr, flush=True)

    result = qcc.compile(model, path, data=data, output=output, progress=tell)
    seconds = time.perf_counter() - began
    for note in result.notes:
        print(f"{path.stem}: {note}", file=sys.stderr)
    scores = (f"{perplexity(output, one):.2f}" for one in judges.values())
    return f"| {path.stem} | {result.output_bytes:,} | {seconds:.0f} | {' | '.join(scores)} |"


def perplexity(model: Path, windows: Path) -> float:
    """Of each token after those before it in its window."""
    run, losses = session(str(model)), []
    ((name, tokens),) = np.load(windows).items()
    for window in tokens:
        losses.append(nats(run.run(None, {name: window[None]})[0][0, :-1], window[1:]))
    return perplexity_of(losses)


if __name__ == "__main__":
    main()
