"""The same model in other runtimes: quality, size and time, in turns in one process.

    python -m benchmarks.rivals MODEL.onnx [--ours COMPILED.onnx ...] --data DATA.npz [--gguf MODEL.gguf ...]
        [--batch 1,16] [--sequence 32] [--threads 1,2] [--rounds 9] [--only NAME ...]

The first half of DATA calibrates what calibrates, the second judges: ``noise`` is the power of the difference of an
output to the float model's over that of the float output less its mean, over those samples. The ratio is the median of
the times over ONNX Runtime's float in the same rounds, of the process's own time on one thread, by the clock on
several. Files of ours run with the kernels beside them. llama.cpp is given a GGUF file; its times are beside the
others', in no rounds with them. What is not installed takes no part and is named; none of it is a dependency of qcc.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.processes.timing import machine
from benchmarks.rivals.encoders import ctranslate2_int8
from benchmarks.rivals.llama import Llama
from benchmarks.rivals.runtimes import RUNTIMES, Given, MissingError, Rival, Run, ours, versions
from qcc.compiler.bench.feeds import Wanted, feeds
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.timing import Turns, interleaved, paired

RIVALS = {**RUNTIMES, "ctranslate2 int8": ctranslate2_int8}
FLOAT = "onnxruntime float"
TURN_S = 0.02
JUDGED = 200  # samples
MASK = "mask"  # in the name of an input that hides tokens: none is hidden, since some runtimes leave those out


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", type=Path)
    add("--ours", nargs="*", type=Path, default=[])
    add("--data", type=Path, required=True)
    add("--gguf", nargs="*", type=Path, default=[])
    add("--batch", default="1,16")
    add("--sequence", type=int, default=32)
    add("--threads", default="1")
    add("--rounds", type=int, default=9)
    add("--only", nargs="*", default=list(RIVALS))
    given = parser.parse_args()
    print(f"# {machine()}, load {os.getloadavg()[0]:.1f}\n# {versions()}\n# python -m benchmarks.rivals", flush=True)
    arrays = dict(np.load(given.data))
    half = len(next(iter(arrays.values()))) // 2
    graph = open_model(given.model).graph
    with tempfile.TemporaryDirectory() as folder:
        first = {name: array[:half] for name, array in arrays.items()}
        made = Given(given.model, first, Path(folder), tuple(one.name for one in graph.outputs))
        rivals = _made(made, dict.fromkeys((FLOAT, *given.only))) | {f"qcc {one.stem}": ours(one) for one in given.ours}
        noises = _noises(rivals, {name: array[half : half + JUDGED] for name, array in arrays.items()})
        batches = [int(word) for word in given.batch.split(",")]
        inputs = {
            batch: {name: np.ones_like(array) if MASK in name else array for name, array in fed.items()}
            for batch, fed in feeds(graph, Wanted(tuple(batches), sequence=given.sequence)).items()
        }
        for threads in (int(word) for word in given.threads.split(",")):
            _report(rivals, noises, inputs, threads, given.rounds)
            for path in given.gguf:
                _report_llama(path, threads, given.sequence, given.rounds)


def _made(given: Given, names: Sequence[str] | Mapping[str, None]) -> dict[str, Rival]:
    found: dict[str, Rival] = {}
    for name in names:
        try:
            found[name] = RIVALS[name](given)
        except MissingError as why:
            print(f"# {name}: {why}", flush=True)
        except Exception as error:  # another tool's own, of whatever kind: the others still run
            print(f"# {name}: {type(error).__name__}: {str(error).splitlines()[0][:100]}", flush=True)
    return found


def _noises(rivals: dict[str, Rival], data: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of each rival's first output; those that do not run are left out of all else."""
    count = len(next(iter(data.values())))
    samples = [{name: array[at : at + 1] for name, array in data.items()} for at in range(count)]
    runs = {name: one.start(1) for name, one in rivals.items()}
    exact = [np.asarray(runs[FLOAT](one)[0], np.float64) for one in samples]
    mean = np.mean([one.mean(axis=tuple(range(one.ndim - 1))) for one in exact], axis=0)
    signal = sum(float(np.square(one - mean).sum()) for one in exact)
    found: dict[str, float] = {}
    for name, run in runs.items():
        try:
            off = sum(_power(run, one, want) for one, want in zip(samples, exact, strict=True))
        except Exception as error:  # as above
            print(f"# {name} does not run: {str(error).splitlines()[0][:100]}", flush=True)
            del rivals[name]
            continue
        found[name] = off / signal
    return found


def _power(run: Run, sample: Mapping[str, np.ndarray], want: np.ndarray) -> float:
    return float(np.square(np.asarray(run(sample)[0], np.float64).reshape(want.shape) - want).sum())


def _report(
    rivals: Mapping[str, Rival],
    noises: Mapping[str, float],
    inputs: Mapping[int, Mapping[str, np.ndarray]],
    threads: int,
    rounds: int,
) -> None:
    runs = {name: one.start(threads) for name, one in rivals.items()}
    columns = {}
    for batch, fed in inputs.items():
        bound = [partial(run, fed) for run in runs.values()]
        if threads > 1:
            taken = interleaved(bound, Turns(rounds, TURN_S, warm=True, settle=True))
        else:
            taken = _own_seconds(bound, rounds)
        seconds = dict(zip(runs, taken, strict=True))
        columns[batch] = {
            name: f"{np.median(one) * 1e3:.3g} ms, {paired(one, seconds[FLOAT]).median:.2f}x"
            for name, one in seconds.items()
        }
    shapes = ["x".join(map(str, next(iter(fed.values())).shape)) for fed in inputs.values()]
    print(f"\n{threads} thread{'s' if threads > 1 else ''}\n\n| | file, MB | noise | {' | '.join(shapes)} |")
    print("|---|---|---|" + "---|" * len(shapes))
    for name, one in rivals.items():
        cells = " | ".join(column[name] for column in columns.values())
        print(f"| {name} | {one.size_bytes / 1e6:.1f} | {noises[name]:.2g} | {cells} |", flush=True)


def _own_seconds(runs: Sequence[Callable[[], object]], rounds: int) -> np.ndarray:
    """Processor seconds of a run ``[runs, rounds]``, in turns, whichever thread of the process it is on."""
    seconds = np.zeros((len(runs), rounds))
    for at in range(rounds):
        for number in np.random.default_rng(at).permutation(len(runs)):
            runs[number]()
            count, start = 0, time.process_time()
            while (taken := time.process_time() - start) < TURN_S:
                runs[number]()
                count += 1
            seconds[number, at] = taken / count
    return seconds


def _report_llama(path: Path, threads: int, tokens: int, rounds: int) -> None:
    try:
        times = Llama(path, threads).times(tokens, rounds)
    except MissingError as why:
        print(f"# llama.cpp: {why}")
        return
    told = f"{times.prompt:.3g} ms for {tokens} tokens, {times.token:.3g} ms for one more"
    print(f"| llama.cpp, {path.stem} | {path.stat().st_size / 1e6:.1f} | | {told} |", flush=True)


if __name__ == "__main__":
    main()
