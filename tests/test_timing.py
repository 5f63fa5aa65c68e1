"""Turns are fair: each runner has as many, none is timed for another's work."""

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.compiler.timing import Turns, interleaved

SHORT_S, LONG_S = 0.001, 0.005


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_every_runner_has_its_turns(runners: int, rounds: int, warm: bool) -> None:
    counts, ticks = [0] * runners, []

    def runner(at: int) -> None:
        counts[at] += 1

    run = [lambda at=at: runner(at) for at in range(runners)]
    seconds = interleaved(run, Turns(rounds, warm=warm), lambda done, total: ticks.append((done, total)))
    assert seconds.shape == (runners, rounds)
    assert (seconds > 0).all()
    assert counts == [1 + rounds * (1 + warm)] * runners
    assert ticks == [(done, runners * rounds) for done in range(runners * rounds)]


def test_times_are_those_of_a_run() -> None:
    seconds = interleaved(
        [lambda: time.sleep(SHORT_S), lambda: time.sleep(LONG_S)], Turns(5, turn_s=2 * LONG_S, warm=True)
    )
    assert (seconds.min(axis=1) >= (SHORT_S, LONG_S)).all()
    assert np.median(seconds[0]) < np.median(seconds[1])
