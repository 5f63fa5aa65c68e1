"""Step caches: which steps of a loop reuse what of which, chosen on the original and cut into what was written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from qcc.compiler.sampler.drive import Driver
from qcc.compiler.sampler.table import ROW, WHOLE, LoopTable
from qcc.compiler.steps.regions import CutRegion, Cuts
from qcc.compiler.steps.schedule import (
    CachedSegment,
    affine,
    best_segments,
    channel_axis,
    corrected,
    held_out,
)
from qcc.dsl.policy.policy import StepCache
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph.graph import Graph, Runner, needed
from qcc.ir.graph.ops import Array
from qcc.ir.model.carried import Carried, Corrections
from qcc.ir.model.model import AnyModel
from qcc.ir.open_file import open_file

REUSE = "reuse"
FOLLOWED, PLACES = 2, 10  # seeds and evaluations of which errors are followed to the end of the loop
MEASURED = 8  # seeds that tell distances; corrections are fitted on all of them
KEPT_BYTES = 1 << 29  # of what regions make along the loop, at most
ALIKE = 0.5  # of its energy's root, and what was written computes in other channels than the original
Rows = list[tuple[Array, Array]]


@dataclass
class StepCaching:
    """A step cache over a loop.

    Args:
        cache: the policy's.
        table: the loop.
        seeds: that all is chosen on.
        graph: of the model as it came.
    """

    cache: StepCache
    table: LoopTable
    seeds: Sequence[int]
    graph: Graph

    @cached_property
    def regions(self) -> tuple[CutRegion, ...]:
        """What may be kept.

        Raises:
            ModelError: there is no such region.
        """
        return Cuts(self.graph, self.table.latent, self.table.output).of(self.cache.regions)

    @property
    def most(self) -> int:
        """How many evaluations may run the whole model."""
        steps = len(self.table.rows)
        return max(1, min(steps, int(self.cache.evaluations.of(steps) + 1e-9)))

    @cached_property
    def segments(self) -> tuple[CachedSegment, ...]:
        """The schedule of least distance from the original's own loop."""
        steps, most = len(self.table.rows), self.most
        longest = min(steps, 3 * -(-steps // most) + 1)
        measured = _Distances(self, longest)
        return best_segments(steps, most, len(self.regions), longest, measured.cost)

    @cached_property
    def scheduled(self) -> LoopTable:
        """The table whose rows say which graph is run, and which row of its corrections."""
        rows, counts = list(self.table.rows), dict[str, int]()
        for one in self.segments:
            for at in range(one.begin + 1, one.end):
                name = self._name(one.region)
                rows[at] = replace(rows[at], graph=name, row=counts.get(name, 0))
                counts[name] = rows[at].row + 1
        return replace(self.table, rows=tuple(rows))

    def _name(self, region: int) -> str:
        used = sorted({one.region for one in self.segments if one.end - one.begin > 1})
        at = used.index(region)
        return f"{REUSE}.{at}" if at else REUSE

    @property
    def used(self) -> dict[str, CutRegion]:
        """The regions that the schedule keeps, by the graphs that reuse them."""
        kept = {one.region for one in self.segments if one.end - one.begin > 1}
        return {self._name(at): self.regions[at] for at in sorted(kept)}

    def write(self, path: Path) -> LoopTable:
        """Cut a model that was written: graphs beside it that read its data file; the table that runs them.

        Raises:
            ModelError: it cannot be cut there.
        """
        model = open_file(path)
        try:
            cut = _CutModel.of(model, self)
            files = {WHOLE: self._write(model, cut.whole, path, WHOLE)}
            for name, corrections in cut.fitted().items():
                graph = model.taking(model.graph, self.used[name].carried, corrections)
                files[name] = self._write(model, graph, path, name)
        except Refused as refused:
            help = "name another region, or leave the layers around it as they are"
            raise ModelError("Q574", f"the model cannot be cut: {refused}", help=help) from refused
        return self.scheduled.running(files)

    def _write(self, model: AnyModel, graph: Graph, path: Path, name: str) -> str:
        file = path.with_name(f"{path.stem}.{name}{path.suffix}")
        data = model.data_files
        model.write(graph, file, path.with_name(data[0]) if data else "never")
        return file.name

    @property
    def facts(self) -> dict[str, Any]:
        """For the lock."""
        kept = [[one.begin, one.end, self.regions[one.region].text] for one in self.segments]
        return {"segments": kept, "whole": self.scheduled.whole, "seeds": list(self.seeds)}

    @property
    def line(self) -> str:
        """For people."""
        told = ", ".join(f"{one.text}, {one.share:.0%} of the work" for one in self.used.values())
        whole = f"{self.scheduled.whole} of {len(self.table.rows)} evaluations are whole"
        return f"step cache: {whole}; the others keep {told}"


def takes(graph: Graph, value: str, output: str) -> list[str]:
    """The inputs that an output needs where a value is known."""
    found = needed(graph, [output], [value])
    return [one.name for one in graph.inputs if one.name in found]


def _joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """What groups of seeds saw at one evaluation, side by side."""
    first = parts[0]
    return {
        name: np.concatenate([one[name] for one in parts]) if array.ndim else array for name, array in first.items()
    }


def _carried_on(driver: Driver, seeds: Sequence[int], seen: Sequence[Mapping[str, Array]]) -> list[float]:
    """How much of a change of each output is in the samples; measured at some evaluations, the others between them.

    An output is changed by what it differs from the last one.
    """
    steps, (run, takes) = len(driver.table.rows), driver.graphs[WHOLE]
    wanted, output = driver.samples(seeds), driver.table.output
    places = sorted({round(at) for at in np.linspace(1, steps - 1, min(PLACES, steps - 1))})
    gains = []
    for place in places:
        change, calls = (seen[place - 1][output] - seen[place][output])[: len(seeds)], count()

        def moved(
            feeds: Mapping[str, Array], place: int = place, change: Array = change, calls: Iterator[int] = calls
        ) -> dict[str, Array]:
            made = dict(run(feeds))
            return made if next(calls) % steps != place else {**made, output: made[output] + change}

        ended = replace(driver, graphs={WHOLE: (moved, takes)}).samples(seeds)
        gains.append(float(np.linalg.norm(ended - wanted) / max(float(np.linalg.norm(change)), 1e-12)))
    return [float(one) for one in np.interp(range(steps), places, gains)] if places else [1.0] * steps


class _Distances:
    """What reusing costs at the output, measured on the original's own loop.

    Half of the seeds fit the corrections, the others measure.
    """

    def __init__(self, caching: StepCaching, longest: int) -> None:
        self._caching, self._longest = caching, longest
        graph, table = caching.graph, caching.table
        carried = [one.carried for one in caching.regions]
        values = list(dict.fromkeys(name for one in carried for name in (one.value, one.source) if name))
        fed = [one.name for one in graph.inputs]
        run = graph.runner(fed, [table.output, *(name for name in values if name not in fed)])
        seeds = list(caching.seeds)[: self._affordable(values)]
        driver = Driver(table, graph.inputs, {WHOLE: (run, fed)})
        parts: list[list[Mapping[str, Array]]] = [[] for _ in table.rows]
        for one in driver.evaluations(seeds):
            parts[one.at].append({**one.feeds, **one.made})
        self._seen = [_joined(one) for one in parts]
        self._weights = _carried_on(driver, seeds[:FOLLOWED], self._seen)
        self._tails = [
            graph.runner([*takes(graph, one.value, table.output), one.value], [table.output]) for one in carried
        ]
        self._errors: dict[tuple[int, int, int], Array] = {}

    def _affordable(self, values: Sequence[str]) -> int:
        """How many seeds' values can be held, two at least."""
        graph = self._caching.graph
        sizes = [[size if isinstance(size, int) else 1 for size in graph.value(name).shape or ()] for name in values]
        each = 4 * len(self._caching.table.rows) * sum(int(np.prod(one)) for one in sizes)
        return max(2, min(MEASURED, int(KEPT_BYTES // max(each, 1))))

    def cost(self, begin: int, end: int, region: int) -> float:
        """The energy of all that a segment misses at the end of the loop."""
        missed = [self._missed(begin, at, region) for at in range(begin + 1, end)]
        return float((np.sum(missed, axis=0) ** 2).sum()) if missed else 0.0

    def _missed(self, begin: int, at: int, region: int) -> Array:
        key = begin, at, region
        if key not in self._errors:
            self._errors[key] = self._measured(begin, at, region)
        return self._errors[key]

    def _measured(self, begin: int, at: int, region: int) -> Array:
        caching = self._caching
        carried, table = caching.regions[region].carried, caching.table
        before, now = (self._change(place, carried) for place in (begin, at))
        tried = np.arange(len(before)) >= len(before) // 2
        kept = before[tried]
        if caching.cache.fit == "affine":
            learnt = ~tried if not tried.all() else tried
            kept = corrected(kept, *affine(before[learnt], now[learnt]))
        made = self._seen[at]
        value = kept + (made[carried.source][tried] if carried.source else 0)
        names = takes(caching.graph, carried.value, table.output)
        feeds = {name: made[name][tried] if made[name].ndim else made[name] for name in names}
        output = self._tails[region]({**feeds, carried.value: value.astype(made[carried.value].dtype)})[table.output]
        return np.asarray(self._weights[at] * (output - made[table.output][tried]), np.float32)

    def _change(self, at: int, carried: Carried) -> Array:
        made = self._seen[at]
        return made[carried.value] - made[carried.source] if carried.source else made[carried.value]


@dataclass
class _CutModel:
    """What was written, cut, with what runs its parts while corrections are fitted along the loop.

    The corrections make what is carried the nearest to what the original computes in the very state that the loop is
    in, so they undo what was lost by reuse and by compression at once.
    """

    caching: StepCaching
    whole: Graph
    model: AnyModel
    whole_run: Runner
    original: Runner

    @classmethod
    def of(cls, model: AnyModel, caching: StepCaching) -> "_CutModel":
        carried = [one.carried for one in caching.used.values()]
        whole = model.giving(model.graph, carried)
        fed = [one.name for one in whole.inputs]
        run = whole.runner(fed, [one.name for one in whole.outputs])
        values = list(dict.fromkeys(name for one in carried for name in (one.value, one.source) if name))
        own = caching.graph
        return cls(caching, whole, model, run, own.runner([one.name for one in own.inputs], values) if values else run)

    def fitted(self) -> dict[str, Corrections | None]:
        """The corrections of each graph that reuses."""
        caching = self.caching
        if caching.cache.fit == "none" or not caching.used:
            return dict.fromkeys(caching.used)
        rows: dict[str, Rows] = {name: [] for name in caching.used}
        fed = [one.name for one in caching.graph.inputs]
        graphs: dict[str, tuple[Runner, Sequence[str]]] = {WHOLE: (self.whole_run, fed)}
        for name, region in caching.used.items():
            graphs[name] = self._fitting(region.carried, rows[name]), [*fed, region.carried.name]
        table, inputs = caching.scheduled, caching.graph.inputs
        driver = Driver(table, inputs, graphs, len(caching.seeds))
        first, _ = next(driver.groups(range(len(caching.seeds))))
        driver.samples([caching.seeds[at] for at in dict.fromkeys(first)])
        return {
            name: Corrections(np.stack([s for s, _ in one]), np.stack([o for _, o in one]), ROW)
            for name, one in rows.items()
        }

    def _fitting(self, carried: Carried, rows: Rows) -> Runner:
        """Runs the part that reuses, after fitting the corrections of this evaluation."""
        graph = self.model.taking(self.model.graph, carried, None)
        names, output = [one.name for one in graph.inputs], self.caching.table.output
        run = graph.runner(names, [output])

        def fit(feeds: Mapping[str, Array]) -> dict[str, Array]:
            kept = feeds[carried.name]
            own = {name: array for name, array in feeds.items() if name != carried.name}
            told = self.original(own)
            wanted = told[carried.value] - told[carried.source] if carried.source else told[carried.value]
            if not self._alike(kept, wanted):
                wanted = self.whole_run(own)[carried.name]
            fitted = held_out(kept, wanted)
            behind = (1,) * (kept.ndim - 1 - channel_axis(kept.ndim))
            rows.append((fitted[0].reshape(-1, *behind), fitted[1].reshape(-1, *behind)))
            found = run({**{name: feeds[name] for name in names}, carried.name: corrected(kept, *fitted)})
            return dict(found)

        return fit

    def _alike(self, one: Array, other: Array) -> bool:
        if one.shape != other.shape:
            return False
        return float(np.linalg.norm(one - other)) < ALIKE * float(np.linalg.norm(other))
