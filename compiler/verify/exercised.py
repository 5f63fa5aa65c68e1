"""Which weights the samples exercise: what a layer reads is not always the same, and its result can reach an output.

One run a sample with the values looked at, until all that can be seen has been; no run a weight.
"""

from collections.abc import Collection, Iterator
from itertools import islice

import numpy as np

from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Samples
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op, Weight

LOOKED = 16  # samples
NOTHING = "no sample gives its layer anything but zeros"
ALIKE = "its layer reads the same on all samples"
CUT_OFF = "on all samples its result is masked, or multiplied by zero"


def unexercised(graph: Graph, names: Collection[str], samples: Samples) -> dict[str, str]:
    """The weights, of those named, that no sample exercises, with the reason; none where values cannot be looked at."""
    weights = [weight for weight in graph.weights() if weight.name in names]
    seen = _Seen(graph, weights)
    try:
        seen.look(samples)
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


class _Seen:
    """What has been seen of values: which were ever other than zero, which ever differed between samples."""

    def __init__(self, graph: Graph, weights: list[Weight]) -> None:
        self._graph, self._ops = graph, graph.ops()
        self._nonzero: set[str] = set()
        self._zero: set[str] = set()  # a place of it is zero: a condition is false there
        self._first: dict[str, np.ndarray] = {}
        self._varies: set[str] = set()
        self._count = 0
        self._read = {layer.input for weight in weights for layer in weight.layers if layer.kind is not Kind.EMBEDDING}
        made = {name for op in self._ops for name in op.outputs}
        inputs = {value.name for value in graph.inputs}
        self._conditions = {op.inputs[0] for op in self._ops if op.function == "where"}
        self._gates = {name for op in self._ops for name in _gates(op) if name in made | inputs}
        self._looked = sorted((self._read | self._gates) & made)
        self._fed = sorted((self._read | self._gates) & inputs)

    def look(self, samples: Samples) -> None:
        """Run samples, as many as it takes."""
        names = tuple(value.name for value in self._graph.inputs)
        runner = self._graph.runner(names, self._looked) if self._looked else None
        for batch in islice(samples.parts(1), LOOKED):
            found: Batch = {name: batch[name] for name in self._fed}
            if runner is not None:
                found |= runner(batch)
            for name, value in found.items():
                self._note(name, value)
            self._count += 1
            if self._count > 1 and not any(map(self._may_open, found)):
                return

    def reason(self, weight: Weight) -> str:
        """Why no sample exercises a weight, if none does."""
        live = self._live()
        layers = {layer.op: layer for layer in weight.layers}
        places = [op for op in self._ops if op.name in layers]
        if not any(name in live for op in places for name in op.outputs):
            return CUT_OFF
        read = [layer.input for layer in weight.layers if layer.kind is not Kind.EMBEDDING]
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

    def _note(self, name: str, value: np.ndarray) -> None:
        if value.dtype.kind not in "biufcV":
            self._nonzero.add(name)
            return
        filled = value.astype(bool)
        if filled.any():
            self._nonzero.add(name)
        if not filled.all():
            self._zero.add(name)
        if name in self._varies or name not in self._read:
            return
        first = self._first.setdefault(name, value)
        if first.shape != value.shape or not np.array_equal(first, value):
            self._varies.add(name)
            del self._first[name]

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


def _gates(op: Op) -> Iterator[str]:
    """The values by which an op may shut others out."""
    if op.function == "where":
        yield op.inputs[0]
    if op.function == "mul":
        yield from op.inputs
