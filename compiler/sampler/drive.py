"""Running a loop by its table, for some seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.compiler.sampler.table import ROW, WHOLE, LoopTable, TableRow
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array, Value

GROUP = 16  # seeds that run at once, where the model takes any number
Noise = Callable[[], Array]


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: where in the loop, what was fed, and what was made."""

    at: int
    row: TableRow
    feeds: Mapping[str, Array]
    made: Mapping[str, Array]


@dataclass(frozen=True)
class Driver:
    """A table with what runs its graphs.

    Args:
        table: the loop.
        inputs: of the model that it is of: how large they are, and of what type.
        graphs: what runs each graph that rows name, with the names of what it takes.
        group: how many seeds run at once, where the model takes any number.
    """

    table: LoopTable
    inputs: Sequence[Value]
    graphs: Mapping[str, tuple[Runner, Sequence[str]]]
    group: int = GROUP

    def samples(self, seeds: Sequence[int], given: Mapping[str, Array] | None = None) -> Array:
        """What the loop makes of seeds, ``[seed, ...]``.

        Args:
            seeds: each draws its own noise, whatever runs beside it.
            given: what other inputs are fed instead of the loop's own, an entry a seed.

        Raises:
            ModelError: the model fails, or what it makes is not finite.
        """
        found = []
        for some, count in self.groups(range(len(seeds))):
            latent, noise = self.begin([seeds[at] for at in some])
            for one in self.steps(latent, noise, self.others(seeds, some, given or {})):
                latent = one
            found.append(latent[:count])
        made = np.concatenate(found)
        if not np.isfinite(made).all():
            raise ModelError("Q572", "the loop makes samples that are not finite")
        return made

    def evaluations(self, seeds: Sequence[int]) -> Iterator[Evaluated]:
        """All evaluations of the loop for seeds, one group of them after another."""
        for some, _ in self.groups(range(len(seeds))):
            seen: list[Evaluated] = []
            latent, noise = self.begin([seeds[at] for at in some])
            for _ in self.steps(latent, noise, self.others(seeds, some, {}), seen.append):
                yield seen.pop()

    def steps(
        self,
        latent: Array,
        noise: Noise,
        others: Mapping[str, Array],
        see: Callable[[Evaluated], None] | None = None,
    ) -> Iterator[Array]:
        """The latent after each evaluation."""
        estimates: list[Array] = []
        kept: dict[str, Array] = {}
        types = {one.name: np.dtype(one.dtype) for one in self.inputs}
        for at, row in enumerate(self.table.rows):
            run, takes = self.graphs[row.graph]
            known = {**others, **kept, self.table.latent: latent, ROW: np.array(row.row, np.int64)}
            if self.table.step:
                known[self.table.step] = self._told(row.step, len(latent))
            feeds = {name: known[name].astype(types.get(name, known[name].dtype), copy=False) for name in takes}
            made = run(feeds)
            if see is not None:
                see(Evaluated(at, row, feeds, made))
            kept.update((name, array) for name, array in made.items() if name != self.table.output)
            output = made[self.table.output].astype(np.float32, copy=False)
            estimates.insert(0, np.float32(row.clean[0]) * latent + np.float32(row.clean[1]) * output)
            del estimates[max(len(one.weights) for one in self.table.rows) :]
            latent = np.float32(row.keep) * latent
            for weight, estimate in zip(row.weights, estimates, strict=False):
                latent = latent + np.float32(weight) * estimate
            if row.noise:
                latent = latent + np.float32(row.noise) * noise()
            yield latent

    def begin(self, seeds: Sequence[int]) -> tuple[Array, Noise]:
        """The first latent, and what draws more noise; each seed draws its own, whatever runs beside it."""
        generators = [np.random.default_rng(seed) for seed in seeds]
        shape = self._value(self.table.latent).shape or ()
        sizes = tuple(size if isinstance(size, int) else self.table.sizes[str(size)] for size in shape[1:])

        def draw() -> Array:
            return np.stack([one.standard_normal(sizes, np.float32) for one in generators])

        return np.float32(self.table.scale) * draw(), draw

    def others(self, seeds: Sequence[int], some: Sequence[int], given: Mapping[str, Array]) -> dict[str, Array]:
        """What the other inputs are fed for some of the seeds."""
        found: dict[str, Array] = {}
        for name, array in given.items():
            found[name] = np.asarray(array, self._value(name).dtype)[list(some)]
        for name, values in self.table.inputs.items():
            if name in found:
                continue
            value = self._value(name)
            one_each = np.array([values[seeds[at] % len(values)] for at in some], value.dtype)
            rank = len(value.shape or ())
            found[name] = one_each[0] if not rank else one_each.reshape(-1, *[1] * (rank - 1))
        return found

    def _told(self, step: float, count: int) -> Array:
        value = self._value(self.table.step)
        return np.full((count, *[1] * (len(value.shape) - 1)) if value.shape else (), step, value.dtype)

    def _value(self, name: str) -> Value:
        return next(one for one in self.inputs if one.name == name)

    def groups(self, places: Sequence[int]) -> Iterator[tuple[list[int], int]]:
        """As many as the model takes at once, and how many of them count: the last stands for what is missing."""
        size = (self._value(self.table.latent).shape or (None,))[0]
        most = size if isinstance(size, int) else self.group
        for at in range(0, len(places), most):
            some = list(places[at : at + most])
            missing = most - len(some) if isinstance(size, int) else 0
            yield some + some[-1:] * missing, len(some)


def whole_driver(table: LoopTable, inputs: Sequence[Value], run: Runner) -> Driver:
    """A loop that runs one model throughout."""
    return Driver(table, inputs, {WHOLE: (run, [one.name for one in inputs])})
