"""Ctrl-C is held back, and not lost."""

import signal
import threading

import pytest

from qcc.codegen.interruption import held_back


@pytest.mark.parametrize("fails", [False, True])
def test_an_interruption_comes_at_the_end(fails: bool) -> None:
    done, handler = [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        done.append(True)
        if fails:
            raise ValueError
    assert done and signal.getsignal(signal.SIGINT) is handler


def test_nothing_comes_of_nothing() -> None:
    with held_back():
        pass


def test_other_threads_are_left_alone() -> None:
    done = []

    def run() -> None:
        with held_back():
            done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done
