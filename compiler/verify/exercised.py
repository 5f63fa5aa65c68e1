"""Which weights the samples exercise: what a layer reads is not always the same, and its result can reach an output.

One run a sample with the values looked at, until all that can be seen has been; no run a weight.
"""

import hashlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe.executor import HERE, Executor
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.in_pieces import InPieces
from qcc.ir.graph.ops import Kind, Op, Weight

LOOKED = 16  # samples
LOOKED_IN_PIECES = 2  # of a model that is larger than memory: as few as differ
NOTHING = "no sample gives its layer anything but zeros"
ALIKE = "its layer reads the same on all samples"
CUT_OFF = "on all samples its result is masked, or multiplied by zero"


def unexercised(graph: Graph, names: Collection[str], samples: Samples, executor: Executor = HERE) -> dict[str, str]:
    """The weights, of those named, that no sample exercises, with the reason; none where values cannot be looked at."""
    weights = [weight for weight in graph.weights() if weight.name in names]
    seen = _Seen(graph, weights)
    try:
        seen.look(samples, executor)
    except ModelError:
        return {}
    return {weight.name: reason for weight in weights if (reason := seen.reason(weight))}


def unread_rows(graph: Graph, names: Collection[str], samples: Samples) -> dict[str, float]:
    """The share of a table's rows that no sample looks up, for tables that are only looked into, by inputs."""
    inputs = {value.name for value in graph.inputs}
    found = {}
    for weight in graph.weights():
        read = {layer.input for layer in weight.layers}
        if weight.name not in names or weight.kinds != {Kind.EMBEDDING} or not read <= inputs:
            continue
        rows = [np.asarray(batch[name]).reshape(-1) for batch in samples.batches for name in read]
        used = np.unique(np.concatenate(rows) % weight.shape[0]).size
        if used < weight.shape[0]:
            found[weight.name] = 1 - used / weight.shape[0]
    return found


@dataclass(frozen=True)
class Glimpse:
    """What one sample shows of values: which are other than zero somewhere, or zero, and hashes of what is read."""

    nonzero: frozenset[str]
    zero: frozenset[str]
    hashes: Mapping[str, str]

    @classmethod
    def of(cls, values: Batch, read: Collection[str]) -> "Glimpse":
        """Of a sample's values; text is never zero."""
        numbers = {name: value for name, value in values.items() if value.dtype.kind in "biufcV"}
        filled = {name: value.astype(bool) for name, value in numbers.items()}
        nonzero = {name for name in values if name not in filled or filled[name].any()}
        zero = {name for name, value in filled.items() if not value.all()}
        return cls(
            frozenset(nonzero), frozenset(zero), {name: _hash(numbers[name]) for name in numbers if name in read}
        )


@dataclass(frozen=True)
class _Looking:
    """Makes what looks at one sample, wherever that is done."""

    graph: Graph
    looked: Sequence[str]
    fed: Sequence[str]
    read: frozenset[str]

    def __call__(self) -> Callable[[Batch], Glimpse]:
        runner = self.runner()
        return lambda batch: self.glimpse(batch, {} if runner is None else runner(batch))

    def runner(self) -> Runner | None:
        """Runs what is looked at, if anything has to be run."""
        names = tuple(value.name for value in self.graph.inputs)
        return self.graph.runner(names, self.looked) if self.looked else None

    def glimpse(self, batch: Batch, made: Batch) -> Glimpse:
        """What a sample shows, of what was fed and made."""
        return Glimpse.of({**{name: batch[name] for name in self.fed}, **made}, self.read)


class _Seen:
    """What has been seen of values: which were ever other than zero, which ever differed between samples."""

    def __init__(self, graph: Graph, weights: list[Weight]) -> None:
        self._graph, self._ops = graph, graph.ops()
        self._nonzero: set[str] = set()
        self._zero: set[str] = set()  # a place of it is zero: a condition is false there
        self._first: dict[str, str] = {}
        self._varies: set[str] = set()
        self._count = 0
        self._read = {name for weight in weights for name in _values_read(weight)}
        made = {name for op in self._ops for name in op.outputs}
        inputs = {value.name for value in graph.inputs}
        self._conditions = {op.inputs[0] for op in self._ops if op.function == "where"}
        self._gates = {name for op in self._ops for name in _gates(op) if name in made | inputs}
        looked, fed = sorted((self._read | self._gates) & made), sorted((self._read | self._gates) & inputs)
        self._looking = _Looking(graph, looked, fed, frozenset(self._read))

    def look(self, samples: Samples, executor: Executor) -> None:
        """Run samples, as many as it takes."""
        names = {*self._looking.looked, *self._looking.fed}
        batches = list(islice(samples.parts(1), LOOKED))
        runner = self._looking.runner() if executor.workers == 1 else None
        if isinstance(runner, InPieces):
            batches = batches[:LOOKED_IN_PIECES]
            for batch, found in zip(batches, runner.each(batches), strict=True):
                self._note(self._looking.glimpse(batch, found))
            return
        glimpses = executor.each(self._looking, batches)
        for glimpse in glimpses:
            self._note(glimpse)
            if self._count > 1 and not any(map(self._may_open, names)):
                break
        if isinstance(glimpses, Generator):
            glimpses.close()  # what is left is not run

    def reason(self, weight: Weight) -> str:
        """Why no sample exercises a weight, if none does."""
        live = self._live()
        layers = {layer.op: layer for layer in weight.layers}
        places = [op for op in self._ops if op.name in layers]
        if not any(name in live for op in places for name in op.outputs):
            return CUT_OFF
        read = _values_read(weight)
        if len(read) < len(weight.layers):
            return ""
        if not any(name in self._nonzero for name in read):
            return NOTHING
        alike = self._count > 1 and not any(name in self._varies for name in read)
        return ALIKE if alike and all(name in self._first for name in read) else ""

    def _may_open(self, name: str) -> bool:
        """Another sample might show more of a value."""
        if name not in self._nonzero or (name in self._conditions and name not in self._zero):
            return True
        return name in self._read and name not in self._varies

    def _note(self, glimpse: Glimpse) -> None:
        self._count += 1
        self._nonzero |= glimpse.nonzero
        self._zero |= glimpse.zero
        self._varies |= {name for name, told in glimpse.hashes.items() if self._first.setdefault(name, told) != told}

    def _live(self) -> set[str]:
        """The values that reach an output on some sample."""
        live = {value.name for value in self._graph.outputs}
        for op in reversed(self._ops):
            if live.intersection(op.outputs):
                live.update(name for at, name in enumerate(op.inputs) if not self._blocked(op, at))
        return live

    def _blocked(self, op: Op, at: int) -> bool:
        """What an op reads at a position never matters."""
        if op.function == "where" and at > 0:
            gate = op.inputs[0]
            return gate in self._gates and gate not in (self._nonzero if at == 1 else self._zero)
        others = [name for one, name in enumerate(op.inputs) if one != at]
        return op.function == "mul" and any(name in self._gates and name not in self._nonzero for name in others)


def _hash(value: np.ndarray) -> str:
    """Of all that is compared."""
    whole = np.ascontiguousarray(value)
    return hashlib.sha256(f"{value.shape} {value.dtype}".encode() + whole.tobytes()).hexdigest()


def _gates(op: Op) -> Iterator[str]:
    """The values by which an op may shut others out."""
    if op.function == "where":
        yield op.inputs[0]
    if op.function == "mul":
        yield from op.inputs


def _values_read(weight: Weight) -> list[str]:
    """What a weight is multiplied with, where that is a value of the graph."""
    return [layer.input for layer in weight.layers if layer.kind is not Kind.EMBEDDING and layer.input]
