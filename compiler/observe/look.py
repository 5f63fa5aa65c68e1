"""Running a model on samples, and adding the rows of what is looked at to what was asked of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qcc.codegen.target.interruption import held_back
from qcc.compiler.calibrate.find_masks import find_masks
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.masks import Hiding
from qcc.compiler.calibrate.parts import Parted
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe.chunks import Chunk, bytes_of, chunks, value_groups
from qcc.compiler.observe.observed import Observed
from qcc.compiler.observe.statistic import Rows, Statistic
from qcc.compiler.observe.tokens import EVERY_TOKEN, TokenWeights
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array

Asked = Sequence[Observed[Statistic]]


@dataclass(frozen=True)
class View:
    """What is looked at: a graph on samples, maybe with another beside it, and what its tokens count."""

    graph: Graph
    samples: Samples
    beside: Graph | None = None
    tokens: TokenWeights = EVERY_TOKEN


@dataclass(frozen=True)
class LookStep:
    """A run: of one group of values, on some samples."""

    group: int
    chunk: Chunk


@dataclass
class Look:
    """Carries out the steps of a pass, one group of values after the other.

    Args:
        view: what is looked at.
        asked: of its values; the rows are added to these.
    """

    view: View
    asked: Asked
    parted: Parted = field(init=False)
    _groups: list[list[str]] = field(init=False)
    _ready: "tuple[int, _Session] | None" = None

    def __post_init__(self) -> None:
        self.parted = Parted.of(self.view.samples)
        names = sorted({one.value for one in self.asked})
        self._groups = value_groups(self.view.graph, names, self.parted.ones[0])

    def steps(self) -> list[LookStep]:
        """All of them, in their order; it takes the run of one sample for each group to know."""
        found = []
        for group in range(len(self._groups)):
            session, ones = self._session(group), self.parted.ones
            fed = [bytes_of(session.hiding.cropped(one)) for one in ones]
            ratio = bytes_of(session.runner(session.hiding.cropped(ones[0]))) / max(fed[0], 1)

            def size(at: int, fed: Sequence[int] = fed, ratio: float = ratio) -> float:
                return fed[at] * ratio

            found += [LookStep(group, chunk) for chunk in chunks(self.parted, size, fed.__getitem__)]
        return found

    def take(self, step: LookStep) -> None:
        """Carry out one; it is done whole, or not at all."""
        session = self._session(step.group)
        feeds = self.parted.samples.joined([self.parted.ones[at] for at in step.chunk.members])
        wanted = {(one.value, one.beside) for one in self.asked if one.value in session.names}
        found, results = session.rows(feeds, self.view.tokens, wanted)
        if step.chunk.repeated:
            found = {key: replace(rows, repeated=True) for key, rows in found.items()}
        alone = not any(self.parted.held)
        with held_back():
            for one in self.asked:
                rows = found.get((one.value, one.beside))
                own = None if rows is None else one.seen.own_rows(results[one.value])
                rows = rows if own is None else Rows(own, repeated=step.chunk.repeated)
                if rows is not None:
                    one.add(rows, step.chunk.held, alone)

    def _session(self, group: int) -> "_Session":
        if self._ready is None or self._ready[0] != group:
            names = self._groups[group]
            beside = {one.beside for one in self.asked if one.beside and one.value in names}
            self._ready = group, _Session.of(self.view, names, sorted(beside))
        return self._ready[1]


@dataclass(frozen=True)
class _Session:
    """A group of values, ready to be looked at."""

    names: Sequence[str]
    runner: Runner
    hiding: Hiding
    beside: Runner | None = None

    @classmethod
    def of(cls, view: View, names: Sequence[str], beside: Sequence[str]) -> "_Session":
        inputs = tuple(value.name for value in view.graph.inputs)
        runner = view.graph.runner(inputs, names)
        hiding = find_masks(view.graph.inputs, runner, view.samples)
        other = view.beside.runner(inputs, beside) if view.beside is not None and beside else None
        return cls(names, runner, hiding, other)

    def rows(
        self, feeds: Batch, tokens: TokenWeights, wanted: Collection[tuple[str, str]]
    ) -> tuple[dict[tuple[str, str], Rows], Mapping[str, Array]]:
        """The rows that count of values, each beside those of the other graph's if one is named; the values."""
        cropped = self.hiding.cropped(feeds)
        results = self.runner(cropped)
        others = self.beside(cropped) if self.beside is not None else {}
        found = {}
        for name, (rows, index) in self._kept(feeds, cropped, results, tokens).items():
            for value, other in wanted:
                if value == name:
                    beside = _flat(others[other])[index] if other else None
                    found[value, other] = replace(rows, beside=beside)
        return found, results

    def _kept(
        self, feeds: Batch, cropped: Batch, results: Mapping[str, Array], tokens: TokenWeights
    ) -> dict[str, tuple[Rows, Array]]:
        """The rows of each value that are in sight and weigh anything, and where they are."""
        found = {}
        for name, kept in self.hiding.sight(self.runner, cropped, results).items():
            flat = _flat(results[name])
            weights = tokens.rows(self.hiding, cropped, name, kept.shape)
            index = np.flatnonzero(kept)
            if self.hiding.masks:
                index = index[flat[index].any(-1)]
            if weights is not None:
                index = index[weights.reshape(-1)[index] > 0]
            hidden = int(kept.size - kept.sum()) + self.hiding.cut(feeds, cropped, name)
            rows = flat if len(index) == len(flat) else flat[index]
            found[name] = Rows(rows, hidden, None if weights is None else weights.reshape(-1)[index]), index
        return found


def _flat(array: Array) -> Array:
    """Its rows, along the last axis."""
    return array.reshape(-1, array.shape[-1] if array.ndim else 1)
