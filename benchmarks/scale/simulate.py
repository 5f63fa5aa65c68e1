"""A model of 70 billion parameters on many workers: what formulas say of it, and what a simulation does.

    python -m benchmarks.scale.simulate [--workers 1 8 64] [--store 2.5]

Nothing of that size is run. Task times are those measured at 7 billion (`docs/scale.md`), by parameters; workers take
the next task when they are done, read its weights from one store whose bandwidth those share that read, and compute.
The formula knows none of this: it divides what there is to do by what there is to do it with.
"""

import argparse
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.scale.model import Architecture

MODEL = Architecture(8192, 80, 28672, 64, 8, 128_256)
ROUND_S = 83.0
"""To round a billion parameters to int4 in groups of 32, two cores of an AMD EPYC, Zen 4."""
RUN_S = 3.7
"""To run a sample of 32 tokens through a billion parameters there."""
BYTES = 4
NIC = 1.25
"""GB a second that one worker reads at most: 10 Gbit/s."""
DISPATCH_S = 0.002
"""Between a worker's asking and its having a task, the scheduler's time among it."""
PIECES = 16
SAMPLES = 8
CANDIDATES = 5


@dataclass(frozen=True)
class Task:
    """GB to be read, then seconds of computing."""

    reads: float
    seconds: float


def rounding() -> Iterator[Task]:
    """Each weight by itself."""
    for _, shape in MODEL.tensors():
        billions = _billions(shape)
        yield Task(billions * BYTES, billions * ROUND_S)


def probing(stay: bool) -> Iterator[Task]:
    """Each weight in each format, run from its piece to the outputs.

    Args:
        stay: a worker holds the pieces that it runs, so that only the weight itself is read.
    """
    weights = [_billions(shape) for _, shape in MODEL.tensors()]
    whole = sum(weights)
    before = 0.0
    for one in weights:
        behind = whole - int(before / whole * PIECES) / PIECES * whole
        before += one
        for _ in range(CANDIDATES):
            yield Task((one if stay else behind) * BYTES, behind * RUN_S * SAMPLES)


def formula(tasks: Sequence[Task], workers: int, store: float) -> float:
    """Seconds, if all were even: what is slower of computing, each worker's own reading with it, and of the store."""
    seconds, reads = sum(one.seconds for one in tasks), sum(one.reads for one in tasks)
    return max((seconds + reads / NIC) / workers, reads / store)


def simulated(tasks: Sequence[Task], workers: int, store: float) -> float:
    """Seconds until the last task is done. Readers share the store evenly, none faster than its own connection."""
    left = iter(tasks)
    reading: dict[int, tuple[float, float]] = {}  # GB left, seconds of computing behind it
    computing: list[tuple[float, int]] = []
    now, started = 0.0, 0
    idle = list(range(workers))
    while True:
        while idle and (one := next(left, None)) is not None:
            reading[idle.pop()] = (one.reads + DISPATCH_S * NIC, one.seconds)
            started += 1
        if not reading and not computing:
            return now
        rate = min(NIC, store / len(reading)) if reading else NIC
        first = min(reading, key=lambda worker: reading[worker][0]) if reading else None
        arrives = now + reading[first][0] / rate if first is not None else float("inf")
        ends = computing[0][0] if computing else float("inf")
        then = min(arrives, ends)
        reading = {worker: (data - rate * (then - now), seconds) for worker, (data, seconds) in reading.items()}
        now = then
        if first is not None and arrives <= ends:
            heapq.heappush(computing, (now + reading.pop(first)[1], first))
        else:
            idle.append(heapq.heappop(computing)[1])


def _billions(shape: Sequence[int]) -> float:
    count = 1
    for size in shape:
        count *= size
    return count / 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 8, 64, 256])
    parser.add_argument("--store", type=float, default=2.5, help="GB a second that the store gives to all")
    args = parser.parse_args()
    jobs = {
        "rounding, a task a weight": list(rounding()),
        "probes, weights read anew": list(probing(stay=False)),
        "probes, pieces stay": list(probing(stay=True)),
    }
    print(f"# {sum(_billions(shape) for _, shape in MODEL.tensors()):.1f} billion, store {args.store} GB/s")
    print("| work | tasks | workers | read, TB | formula, h | simulated, h | of a worker's, over their number |")
    print("|---|---|---|---|---|---|---|")
    for name, tasks in jobs.items():
        alone = simulated(tasks, 1, args.store)
        for workers in args.workers:
            found = simulated(tasks, workers, args.store)
            told = formula(tasks, workers, args.store)
            cells = (name, f"{len(tasks):,}", str(workers), f"{sum(one.reads for one in tasks) / 1e3:.2f}")
            print(f"| {' | '.join(cells)} | {told / 3600:.2f} | {found / 3600:.2f} | {alone / workers / found:.2f} |")


if __name__ == "__main__":
    main()
