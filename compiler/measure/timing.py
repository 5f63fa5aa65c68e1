"""Timing things against each other: in turns, in one process, so that what else the machine does meets all alike."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Feeds

RoundTick = Callable[[int, int], None]
NOTICEABLE = 1.02
"""Two runs of one model differ by as much, by where their memory lies."""
NORMAL_99 = 2.58
SLOWER = "(slower)"
LOOK_S, LOOKS = 0.002, 250  # between looks at whether threads work, and at most so many
ASLEEP = 0.1  # of a core: less is no thread that spins
QUIET = 2  # looks that find none, since one may have waited for a core


@dataclass(frozen=True)
class Turns:
    """How runs take turns.

    Args:
        rounds: each runner has one turn in each, in random order.
        turn_s: a turn goes on for at least so long, and gives the mean of its runs; 0 for one run.
        warm: a turn begins with a run that is not timed, which brings weights and code back into the caches.
        settle: between turns nothing is done until the threads of the last one are asleep; for runs of several threads.
        own: only the time that the processor spends on the calling thread counts, which leaves out what else a busy
            machine does; for runs that use no other thread.
    """

    rounds: int = 15
    turn_s: float = 0.0
    warm: bool = False
    settle: bool = False
    own: bool = False


RACE = Turns(rounds=15, turn_s=0.002, warm=True)


@dataclass(frozen=True)
class Ratio:
    """One time over another: the median over rounds, each of which both share, and where it lies 99 times in 100."""

    median: float
    low: float
    high: float

    @property
    def slower(self) -> bool:
        """Beyond noise: the whole interval is above one, and the median noticeably."""
        return self.low > 1 and self.median > NOTICEABLE

    @property
    def faster(self) -> bool:
        """Beyond noise."""
        return self.high < 1 and self.median < 1 / NOTICEABLE


def paired(seconds: np.ndarray, base: np.ndarray) -> Ratio:
    """A runner's time over another's, round by round ``[rounds]``.

    The interval is that of the sign test, between two of the sorted ratios: nothing is assumed of how noise is spread.
    With fewer than eight rounds it takes in the extremes, and says less than 99 %.
    """
    ratios = np.sort(seconds / base)
    count = len(ratios)
    outside = max(int((count - NORMAL_99 * count**0.5) // 2), 0)
    return Ratio(float(np.median(ratios)), float(ratios[outside]), float(ratios[count - 1 - outside]))


def times_text(ratio: float, of: str, slower: bool) -> str:
    """A time over another, in words that cannot be read as a speed; ``of`` what, where no heading says it."""
    return f"{ratio:.2f}x the time" + (f" of {of}" if of else "") + (f" {SLOWER}" if slower else "")


def interleaved(
    runners: Sequence[Callable[[], object]], turns: Turns, tick: RoundTick = lambda _done, _total: None
) -> np.ndarray:
    """Seconds of a run ``[runners, rounds]``.

    Args:
        runners: what is timed; each is run once before all.
        turns: how.
        tick: told how many turns are done, of how many.
    """
    for run in runners:
        run()
    seconds = np.zeros((len(runners), turns.rounds))
    order, shuffle = list(range(len(runners))), random.Random(0)
    for number in range(turns.rounds):
        shuffle.shuffle(order)
        for done, at in enumerate(order):
            tick(number * len(order) + done, turns.rounds * len(order))
            seconds[at, number] = _turn(runners[at], turns)
    return seconds


def _turn(run: Callable[[], object], turns: Turns) -> float:
    if turns.settle:
        _settle()
    if turns.warm:
        run()
    clock = time.thread_time if turns.own else time.perf_counter
    count, start = 0, clock()
    while True:
        run()
        count += 1
        taken = clock() - start
        if taken >= turns.turn_s:
            return taken / count


def _settle() -> None:
    """Wait until no thread of this process works.

    ONNX Runtime's spin for some 36 ms after a run, in wait of another, and take cores from who has its turn next.
    """
    quiet = 0
    for _ in range(LOOKS):
        before = time.process_time()
        time.sleep(LOOK_S)
        quiet = quiet + 1 if time.process_time() - before < LOOK_S * ASLEEP else 0
        if quiet == QUIET:
            return


def race(one: Runner, other: Runner, feeds: Feeds) -> float:
    """How long a piece of a graph takes as a share of another's time; 1 where they cannot be told apart."""
    seconds = interleaved([partial(one, feeds), partial(other, feeds)], RACE)
    found = paired(seconds[0], seconds[1])
    return found.median if found.slower or found.faster else 1.0
