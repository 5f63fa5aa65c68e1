"""Holding back Ctrl-C while what must not be cut in two is done, or foreign code runs that would make another error of
it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_back() -> Iterator[None]:
    """Interruptions come when the block is left.

    TVM calls back into Python, and what is raised there comes out as a bare ``RuntimeError``.
    Modules in C do not stand being interrupted while they load: a command loads what it needs in such a block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals elsewhere
        return
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
