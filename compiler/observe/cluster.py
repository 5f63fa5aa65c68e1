"""Independent work on many machines, by Dask: tasks are named by what they do, and one whose worker dies is done again.

What is worked with is pickled once for each work, and every process of a worker makes ready for it once. A model lies
in its file, so the workers of other machines need a folder that all of them see under the same path. Results come in
order, so they are the same bytes whatever the number of workers.
"""

import hashlib
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from qcc.compiler.observe.executor import AHEAD, HERE, Executor, Processes
from qcc.ir.errors import ModelError, first_line

T = TypeVar("T")
R = TypeVar("R")

LOCAL = "local:"
PATIENCE_S = "30s"  # for a scheduler to answer
LIVES = 3  # workers that may die of one task, as far as anybody knows, before it is at fault itself
HELP = "`local:N` for N processes of this machine, or `tcp://HOST:PORT` of a scheduler that `dask scheduler` started"


class Cluster(Executor):
    """A scheduler of Dask's with its workers.

    Args:
        address: ``local:N`` or ``tcp://HOST:PORT``.

    Raises:
        ModelError: Dask is not installed, nothing answers there, or there is no worker.
    """

    def __init__(self, address: str) -> None:
        try:
            import dask
            import distributed
        except ImportError as error:
            message = "work is handed to a cluster by Dask, which is not installed"
            raise ModelError("Q599", message, "`pip install 'qcc[cluster]'`") from error
        dask.config.set({"distributed.scheduler.allowed-failures": LIVES})
        self._client, self._own = _connected(distributed, address)
        self.workers = max(sum(self._client.nthreads().values()), 1)

    def each(self, make: Callable[[], Callable[[T], R]], things: Sequence[T]) -> Iterator[R]:
        """Do the work; no more is handed out than a few things a worker."""
        made = bytes(ForkingPickler.dumps(make))
        digest = hashlib.sha256(made).hexdigest()
        work = self._client.scatter(made, broadcast=True, hash=False)
        waiting: deque[Any] = deque()
        try:
            for at, thing in enumerate(things):
                waiting.append(self._submitted(work, digest, at, thing))
                if len(waiting) >= AHEAD * self.workers:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            for one in waiting:
                one.cancel()

    def _submitted(self, work: Any, digest: str, at: int, thing: object) -> Any:  # noqa: ANN401 - Dask's futures
        packed = bytes(ForkingPickler.dumps(thing))
        key = f"qcc-{digest[:24]}-{at}-{hashlib.sha256(packed).hexdigest()[:24]}"
        return self._client.submit(_do, work, digest, packed, key=key)

    def _result(self, future: Any) -> Any:  # noqa: ANN401 - whatever the work gives
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            help = "it may need more memory than a worker has: run it with fewer workers on each machine"
            raise ModelError("Q530", f"{LIVES + 1} workers ended while they did the same task", help) from error

    def close(self, wait: bool = True) -> None:
        """Leave the scheduler, and end the workers that were started here."""
        self._client.close()
        if self._own is not None:
            self._own.close()


def _connected(distributed: Any, address: str) -> tuple[Any, Any]:  # noqa: ANN401 - Dask has no types
    """A client, and the cluster that was started for it, if one was."""
    count = address.removeprefix(LOCAL)
    if address.startswith(LOCAL):
        if not count.isdecimal() or int(count) < 1:
            raise ModelError("Q599", f"`{address}` is no cluster", HELP)
        own = distributed.LocalCluster(int(count), threads_per_worker=1, processes=True, dashboard_address=None)
        return distributed.Client(own), own
    if "://" not in address:
        raise ModelError("Q599", f"`{address}` is no cluster", HELP)
    try:
        client = distributed.Client(address, timeout=PATIENCE_S)
        client.wait_for_workers(1, timeout=PATIENCE_S)
    except (OSError, TimeoutError, ValueError) as error:
        message = f"no scheduler with workers answers at `{address}`: {first_line(error)}"
        raise ModelError("Q599", message, HELP) from error
    return client, None


def executor_of(jobs: int | str) -> Executor:
    """One thing after the other here, in so many processes, or by the cluster of that address.

    Raises:
        ValueError: there is less than one.
    """
    if isinstance(jobs, str):
        return Cluster(jobs)
    if jobs < 1:
        raise ValueError(f"jobs is at least 1, not {jobs}")
    return HERE if jobs == 1 else Processes(jobs)


_ready: tuple[str, Callable[[Any], Any]] | None = None
"""The work that this process does, by its hash."""


def _do(work: bytes, digest: str, thing: bytes) -> Any:  # noqa: ANN401 - whatever the work takes and gives
    """Do the work to one thing, in a worker."""
    global _ready
    if _ready is None or _ready[0] != digest:
        _ready = None
        _ready = digest, pickle.loads(work)()
    return _ready[1](pickle.loads(thing))
