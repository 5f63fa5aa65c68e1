"""Turns are fair: each runner has as many, none is timed for another's work."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.compiler.measure import timing
from qcc.compiler.measure.timing import Turns, interleaved, paired, times_text

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


def test_a_turn_begins_when_the_threads_of_the_last_one_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """They work for some time after a run, by the processor time of the process, and each turn waits for that."""
    clock = {"at": 0.0, "used": 0.0, "busy": 0.0}

    def sleep(seconds: float) -> None:
        worked = min(seconds, clock["busy"])
        clock["at"] += seconds
        clock["used"] += worked
        clock["busy"] -= worked

    def run() -> None:
        assert clock["busy"] == 0
        clock["at"] += SHORT_S
        clock["busy"] = 0.036

    fake = SimpleNamespace(sleep=sleep, process_time=lambda: clock["used"], perf_counter=lambda: clock["at"])
    monkeypatch.setattr(timing, "time", fake)
    np.testing.assert_allclose(interleaved([run], Turns(3, settle=True)), SHORT_S)


def test_noise_is_not_slower() -> None:
    """Identical runs on a machine that is now and then three times as slow: one interval in twenty may err."""
    random = np.random.default_rng(0)

    def busy() -> np.ndarray:
        return np.where(random.random((2, 15)) < 0.3, 3.0, 1.0) * random.normal(1, 0.05, (2, 15))

    told = [ratio for _ in range(200) if (ratio := paired(*busy())).slower or ratio.faster]
    assert len(told) <= 20


def test_what_slows_a_round_slows_both() -> None:
    load = np.random.default_rng(0).uniform(1, 10, 15)
    ratio = paired(1.5 * load, load)
    assert ratio.slower and not ratio.faster
    assert np.allclose((ratio.median, ratio.low, ratio.high), 1.5)
    assert paired(load, 1.5 * load).faster


def test_what_nobody_notices_is_not_slower() -> None:
    assert not paired(np.full(15, 1.01), np.ones(15)).slower


def test_few_rounds_take_in_the_extremes() -> None:
    ratio = paired(np.array([1.5, 1.4, 0.9]), np.ones(3))
    assert (ratio.low, ratio.median, ratio.high) == (0.9, 1.4, 1.5)


def test_times_in_words() -> None:
    assert times_text(1.934, "float", True) == "1.93x the time of float (slower)"
    assert times_text(0.43, "the input", False) == "0.43x the time of the input"
