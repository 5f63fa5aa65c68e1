"""Where parts of long work are done: here one after the other, or in other processes."""

import multiprocessing
import pickle
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Self, TypeVar

from qcc.codegen.target import cache
from qcc.codegen.target.scratch import scratch
from qcc.ir.cores import cores
from qcc.ir.errors import ModelError

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # tasks that are handed out to each worker: what is interrupted is lost


class Executor(ABC):
    """Does the same to each of many things. Results come in the order of the things, as they are ready.

    Interruptions and errors end the work wherever it is done; whoever consumes the results tells how far it is.
    """

    workers: int = 1
    kept: set[str] | None = None
    """The files of whole passes over data, where these are kept for who asks the same again."""

    @abstractmethod
    def each(self, make: Callable[[], Callable[[T], R]], things: Sequence[T]) -> Iterator[R]:
        """Do the work.

        Args:
            make: makes what does it, once in every place where it is done; elsewhere than here it is pickled.
            things: what it is done to.

        Raises:
            ModelError: of the work.
        """

    def close(self, wait: bool = True) -> None:  # noqa: B027 - not all start something
        """End what was started for the work; more of it may be asked for all the same.

        Args:
            wait: for what is still being done.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(wait=error is None)


class Here(Executor):
    """One thing after the other, in this process."""

    def each(self, make: Callable[[], Callable[[T], R]], things: Sequence[T]) -> Iterator[R]:
        """Do the work."""
        work = make()
        return (work(thing) for thing in things)


class Again(Here):
    """Here, for work that is done several times over: what passes over data gave is kept until it is closed."""

    def __init__(self) -> None:
        self.kept = set()

    def close(self, wait: bool = True) -> None:
        """Keep nothing any more."""
        for name in self.kept or ():
            cache.remove(name)


class Processes(Executor):
    """In processes of this machine, each with its own runtime; they are started once and do one work after the other.

    Args:
        workers: how many; by default one for each processor.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or cores()
        self._pool: ProcessPoolExecutor | None = None

    def each(self, make: Callable[[], Callable[[T], R]], things: Sequence[T]) -> Iterator[R]:
        """Do the work; no more is handed out than a few things a worker."""
        with scratch() as folder:
            made = folder / "work"
            made.write_bytes(ForkingPickler.dumps(make))
            yield from self._each(made, things)

    def _each(self, made: Path, things: Sequence[T]) -> Iterator[R]:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # threads of a runtime do not survive a fork
            self._pool = ProcessPoolExecutor(self.workers, context)
        pool = self._pool
        waiting: deque[Future[R]] = deque()
        try:
            for thing in things:
                waiting.append(pool.submit(_do, made, thing))
                if len(waiting) >= AHEAD * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            self.close(wait=False)
            help = "run it with fewer of them, or in this one"
            raise ModelError("Q530", "a process that does part of the work ended", help) from error
        finally:
            for one in waiting:
                one.cancel()

    def close(self, wait: bool = True) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait, cancel_futures=True)
            self._pool = None


HERE = Here()


_ready: tuple[Path, Callable[[Any], Any]] | None = None
"""The work that this process does, by the file that says how it is made."""


def _do(made: Path, thing: Any) -> Any:  # noqa: ANN401 - whatever the work takes and gives
    """Do the work to one thing, having made ready for it, and forgotten the work before."""
    global _ready
    if _ready is None or _ready[0] != made:
        _ready = None
        _ready = made, pickle.loads(made.read_bytes())()
    return _ready[1](thing)
