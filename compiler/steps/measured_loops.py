"""What short loops were measured to miss, kept on disk, and evaluations that several loops share."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from qcc.codegen.target import cache
from qcc.compiler.sampler.drive import Driver
from qcc.compiler.sampler.table import LoopTable
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array, Feeds

MOST_BYTES = 1 << 28  # of what evaluations made
PREFIX = "short-loop-"
OLD_S = 7 * 86400.0  # what nobody has gone on with is removed


class MeasuredLoops:
    """Loops held to the samples of a long one, seeds in two halves.

    Loops that begin alike share evaluations: a step that is moved changes nothing before it. What was measured is kept
    on disk under a hash of the long loop's samples, so that a search that was killed goes on where it was.

    Args:
        run: runs a table.
        seeds: that loops are measured on.
        wanted: the long loop's samples of them.
    """

    def __init__(self, run: Callable[[LoopTable], Driver], seeds: Sequence[int], wanted: Array) -> None:
        self._run, self._seen = run, _SharedEvaluations()
        middle = (len(seeds) + 1) // 2
        self._parts = [(seeds[:middle], wanted[:middle]), (seeds[middle:], wanted[middle:])][: len(seeds)]
        self._whole = float(np.linalg.norm(wanted)) or 1.0
        told = hashlib.sha256(np.ascontiguousarray(wanted).tobytes() + repr(tuple(seeds)).encode()).hexdigest()
        self._file = f"{PREFIX}{told[:32]}.json"
        cache.remove_old(PREFIX, OLD_S)
        kept = cache.read_json(self._file)
        self._known: dict[str, float] = dict(kept) if isinstance(kept, dict) else {}
        self.fresh = 0
        """Halves that were run, and not found on disk."""

    @property
    def halves(self) -> int:
        """How many parts the seeds have."""
        return len(self._parts)

    def energy(self, table: LoopTable, half: int) -> float:
        """The energy that a loop misses of the long one's samples of a half of the seeds."""
        key = hashlib.sha256(f"{half} {table.scale!r} {table.rows!r}".encode()).hexdigest()[:32]
        if key not in self._known:
            seeds, wanted = self._parts[half]
            made = self._seen.through(self._run(table)).samples(seeds)
            self._known[key] = float(np.sum(np.square(made.astype(np.float64) - wanted)))
            self.fresh += 1
            cache.write_json(self._file, self._known)
        return self._known[key]

    def share(self, energy: float) -> float:
        """The root of an energy over that of the long loop's samples."""
        return float(np.sqrt(energy)) / self._whole


class _SharedEvaluations:
    """Remembers what a model made of what it was fed, as far as there is room, the newest."""

    def __init__(self) -> None:
        self._made: OrderedDict[bytes, dict[str, Array]] = OrderedDict()
        self._bytes = 0

    def through(self, driver: Driver) -> Driver:
        """The driver with graphs that are run only where they were not."""
        graphs = {name: (self._remembering(name, run), takes) for name, (run, takes) in driver.graphs.items()}
        return replace(driver, graphs=graphs)

    def _remembering(self, name: str, run: Runner) -> Runner:
        def remembered(feeds: Feeds) -> dict[str, Array]:
            key = _key(name, feeds)
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
            made = {one: np.array(array) for one, array in run(feeds).items()}
            self._made[key] = made
            self._bytes += _size(made)
            while self._bytes > MOST_BYTES and len(self._made) > 1:
                self._bytes -= _size(self._made.popitem(last=False)[1])
            return made

        return remembered


def _key(name: str, feeds: Feeds) -> bytes:
    digest = hashlib.sha256(name.encode())
    for one, array in sorted(feeds.items()):
        digest.update(f"{one} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _size(made: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in made.values())
