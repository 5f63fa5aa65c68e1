"""Where parts of long work are done: here one after the other, or in other processes."""

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from qcc.ir.errors import ModelError

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # tasks that are handed out to each worker: what is interrupted is lost


class Executor(ABC):
    """Does the same to each of many things. Results come in the order of the things, as they are ready.

    Interruptions and errors end the work wherever it is done; whoever consumes the results tells how far it is.
    """

    workers: int = 1

    @abstractmethod
    def each(self, make: Callable[[], Callable[[T], R]], things: Sequence[T]) -> Iterator[R]:
        """Do the work.

        Args:
            make: makes what does it, once in every place where it is done; elsewhere than here it is pickled.
            things: what it is done to.

        Raises:
            ModelError: of the work.
        """


class Here(Executor):
    """One thing after the other, in this process."""

    def each(self, make: Callable[[], Callable[[T], R]], things: Sequence[T]) -> Iterator[R]:
        """Do the work."""
        work = make()
        return (work(thing) for thing in things)


class Processes(Executor):
    """In processes of this machine, each with its own runtime.

    Args:
        workers: how many; by default one for each processor.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or os.cpu_count() or 1

    def each(self, make: Callable[[], Callable[[T], R]], things: Sequence[T]) -> Iterator[R]:
        """Do the work; no more is handed out than a few things a worker."""
        context = multiprocessing.get_context("spawn")  # threads of a runtime do not survive a fork
        pool = ProcessPoolExecutor(min(self.workers, max(len(things), 1)), context, _begin, (make,))
        waiting: list[Future[R]] = []
        left = iter(things)
        try:
            for thing in left:
                waiting.append(pool.submit(_do, thing))
                if len(waiting) >= AHEAD * self.workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        except BrokenProcessPool as error:
            help = "run it with fewer of them, or in this one"
            raise ModelError("Q530", "a process that does part of the work ended", help) from error
        finally:
            pool.shutdown(wait=not waiting, cancel_futures=True)


HERE = Here()


def executor_of(jobs: int) -> Executor:
    """One thing after the other here, or in so many processes.

    Raises:
        ValueError: there is less than one.
    """
    if jobs < 1:
        raise ValueError(f"jobs is at least 1, not {jobs}")
    return HERE if jobs == 1 else Processes(jobs)


_work: Callable[[Any], Any] | None = None


def _begin(make: Callable[[], Callable[[Any], Any]]) -> None:
    """Make ready what does the work in this process."""
    global _work
    _work = make()


def _do(thing: Any) -> Any:  # noqa: ANN401 - whatever the work takes and gives
    assert _work is not None
    return _work(thing)
