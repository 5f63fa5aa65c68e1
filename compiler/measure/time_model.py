"""How long a model takes for one sample: the input, and what became of it, with its kernels and without."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import exp, log
from pathlib import Path

import numpy as np

from qcc.codegen.target.machine import machine
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.time_nodes import time_nodes
from qcc.compiler.measure.timing import Ratio, Turns, interleaved, paired
from qcc.compiler.runtime.roofline import NodeTime
from qcc.compiler.runtime.session import Session

FEWEST, MOST = 5, 15
ABOUT_S = 4.0  # of timing, for each number of threads
TURN_S = 0.002


@dataclass(frozen=True)
class Entrant:
    """A model as it is run: with the library at ``library``, or without any, by the runtime's providers."""

    model: Path
    library: Path | None = None
    providers: Sequence[str] = ()


@dataclass(frozen=True)
class Race:
    """What entrants took for one sample: ``seconds [entrants, rounds]``.

    ``threads`` is None for as many as the runtime takes of itself. ``starts_s`` are what the entrants' sessions took to
    be made, decoding at load included; ``sample`` is what the last of them was fed.
    """

    threads: int | None
    seconds: np.ndarray
    starts_s: tuple[float, ...]
    sample: Batch = field(default_factory=dict)

    @property
    def threads_text(self) -> str:
        """How many threads, in words."""
        return "the runtime's default threads" if self.threads is None else threads_text(self.threads)

    def median_s(self, at: int) -> float:
        """Of an entrant."""
        return float(np.median(self.seconds[at]))

    @property
    def slower_than_first(self) -> bool:
        """One of the others is, beyond noise."""
        return any(self.ratio(at).slower for at in range(1, len(self.seconds)))

    def ratio(self, at: int, base: int = 0) -> Ratio:
        """An entrant's time over another's, round by round."""
        return paired(self.seconds[at], self.seconds[base])


@dataclass(frozen=True)
class ModelTimes:
    """The races of the input, the written model in plain ONNX Runtime and, ``with_kernels``, the same with its kernels.

    The first is on one thread, the next, if there are more to be had, on as many as the runtime takes, and a third on
    as many as a policy is about. ``starts_s`` are what the sessions of the input and of the written model took to be
    made: decoding at load is not in the races. ``nodes`` are those of the written model as it is meant to be run, where
    these were asked for, and ``predicted_s`` is what that was foretold to take on ``threads``.
    """

    races: tuple[Race, ...]
    with_kernels: bool
    starts_s: tuple[float, float]
    predicted_s: float | None = None
    nodes: tuple[NodeTime, ...] = ()
    threads: int = 1

    @property
    def before_s(self) -> float:
        """Of the input, on one thread."""
        return self.races[0].median_s(0)

    @property
    def plain_s(self) -> float:
        """Of the written model without kernels, on one thread."""
        return self.races[0].median_s(1)

    @property
    def kernels_s(self) -> float | None:
        """With kernels, on one thread."""
        return self.races[0].median_s(2) if self.with_kernels else None

    @property
    def after_s(self) -> float:
        """Of the written model as it is meant to be run, on one thread."""
        return self.races[0].median_s(self.entrant)

    @property
    def asked_s(self) -> float:
        """The same on as many threads as a prediction is about."""
        return next(one for one in self.races if one.threads == self.threads).median_s(self.entrant)

    def beyond(self, bound_s: float) -> bool:
        """A prediction was held to a bound, and the written model takes longer."""
        return self.predicted_s is not None and self.asked_s > bound_s

    @property
    def entrant(self) -> int:
        """The written model as it is meant to be run."""
        return 2 if self.with_kernels else 1

    @property
    def slower(self) -> tuple[Race, ...]:
        """Those that the written model loses to the input, beyond noise."""
        return tuple(race for race in self.races if race.ratio(self.entrant).slower)

    @property
    def kernels_lose(self) -> tuple[Race, ...]:
        """Those that the written model with kernels loses to the same without, beyond noise."""
        return tuple(race for race in self.races if self.with_kernels and race.ratio(2, 1).slower)


def threads_text(count: int) -> str:
    """So many, in words."""
    return "one thread" if count == 1 else f"{count} threads"


def time_input(model: Path, data: Samples, providers: Sequence[str], threads: int = 1) -> float:
    """Median seconds of a model as it came in, for one sample."""
    return race((Entrant(model, None, providers),), data, threads).median_s(0)


def time_models(
    files: tuple[Path, Path, Path | None],
    data: Samples,
    predicted: float | None,
    providers: Sequence[str],
    by_node: bool = False,
    threads: int = 1,
) -> ModelTimes:
    """Time the input model and the written one, in turn; the latter's nodes, too, for which it is written once more."""
    model, written, library = files
    entrants = [Entrant(model, None, providers), Entrant(written, None, providers)]
    entrants += [] if library is None else [Entrant(written, library, providers)]
    found = races(entrants, data, threads)
    starts = found[0].starts_s
    nodes = time_nodes(written, library, found[0].sample, providers) if by_node else ()
    return ModelTimes(found, library is not None, (starts[0], starts[-1]), predicted, nodes, threads)


def thread_counts() -> tuple[int | None, ...]:
    """One thread, and the runtime's default where that is another."""
    return (1, None) if machine().cores > 1 else (1,)


def races(entrants: Sequence[Entrant], data: Samples, asked: int = 1) -> tuple[Race, ...]:
    """A race at each number of threads; where one is slower than the first, once more, and only both together count."""
    found = (race(entrants, data, threads) for threads in dict.fromkeys((*thread_counts(), asked)))
    return tuple(_again(one, entrants, data) if one.slower_than_first else one for one in found)


def _again(first: Race, entrants: Sequence[Entrant], data: Samples) -> Race:
    """With as many rounds more: what else a machine does comes and goes."""
    more = race(entrants, data, first.threads)
    return replace(first, seconds=np.concatenate([first.seconds, more.seconds], axis=1))


def race(entrants: Sequence[Entrant], data: Samples, threads: int | None) -> Race:
    """Run the first sample in each of the entrants, in turn.

    On one thread only that thread's own processor time counts, whatever else the machine does.
    """
    sessions, starts = [], []
    for one in entrants:
        start = time.perf_counter()
        sessions.append(Session(one.model, one.library or False, threads, one.providers))
        starts.append(time.perf_counter() - start)
    sample = next(data.parts(1))
    fed = [session.coded(sample) for session in sessions]
    runs = [partial(session.run, one) for session, one in zip(sessions, fed, strict=True)]
    start = time.perf_counter()
    for run in runs:
        run()
    rounds = int(ABOUT_S / 2 / (time.perf_counter() - start))  # each turn is a run to warm up and one that counts
    alone = threads == 1
    turns = Turns(min(max(rounds, FEWEST), MOST), TURN_S, warm=True, settle=not alone, own=alone)
    return Race(threads, interleaved(runs, turns), tuple(starts), fed[-1])


def fastest(races: Sequence[Race], entrants: Sequence[int], base: int = 0) -> int:
    """Which of some entrants is to be run: that which is slower than the base at the fewest numbers of threads.

    Among equals it is that with the least time over the base's, in the geometric mean; the first stands unless another
    is ahead by more than noise.
    """

    def lost(at: int) -> int:
        return sum(race.ratio(at, base).slower for race in races)

    def ahead(at: int, of: int) -> bool:
        ratios = [race.ratio(at, of) for race in races]
        mean = exp(sum(log(one.median) for one in ratios) / len(ratios))
        return mean < 1 and any(one.faster for one in ratios)

    best = entrants[0]
    for at in entrants[1:]:
        if lost(at) < lost(best) or (lost(at) == lost(best) and ahead(at, best)):
            best = at
    return best
