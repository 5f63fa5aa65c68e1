"""The phases of a long run: told as they go, and timed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int, str], None]
"""Called with a phase, how much of it is done, of how much, and on what."""


def silent(phase: str, done: int, total: int, detail: str) -> None:
    """Show nothing."""


WARNING = "warning"
"""In the place of a phase: something is wrong already, and ``detail`` says what."""


class Phases:
    """Tells of phases and keeps the seconds that each took; a phase may come several times."""

    def __init__(self, progress: Progress = silent) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What is done within belongs to the phase."""
        self.tell(name, 0, 0, "")
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def tell(self, phase: str, done: int, total: int, detail: str) -> None:
        """Report how far a phase is."""
        self._progress(phase, done, total, detail)

    def warn(self, message: str) -> None:
        """Tell at once what will be told again at the end."""
        self._progress(WARNING, 0, 0, message)

    def counter(self, phase: str, total: int = 0) -> Callable[[str], None]:
        """A function to call with the name of each thing as it is begun; the total is zero where it is not known."""
        done = 0

        def tick(name: str) -> None:
            nonlocal done
            done += 1
            self.tell(phase, done if total else 0, total, name)

        return tick
