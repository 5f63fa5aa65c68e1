"""Residual branches: what is computed of a value and added to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qcc.ir.graph.edits import fresh
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op


@dataclass(frozen=True)
class ResidualBranch:
    """``sum = stream + end``, where ``end`` is computed of the stream and read by nothing else.

    ``op`` is the addition and ``position`` that of the end among its inputs; ``ops`` are those that only the branch
    needs, and ``weights`` the names of the weights that layers among them read.
    """

    name: str
    op: str
    position: int
    stream: str
    end: str
    sum: str
    ops: frozenset[str]
    weights: tuple[str, ...]


def residual_branches(graph: Graph) -> tuple[ResidualBranch, ...]:
    """The residual branches of a graph that have layers, in the order in which they end; some lie in others."""
    ops = graph.ops()
    finder = _Finder(graph, ops)
    found = [branch for op in ops if (branch := finder.branch(op)) is not None and branch.weights]
    taken: set[str] = set()
    named = []
    for branch in found:
        name = fresh(branch.name, taken)
        taken.add(name)
        named.append(replace(branch, name=name))
    return tuple(named)


class _Finder:
    def __init__(self, graph: Graph, ops: Sequence[Op]) -> None:
        self._order = {op.name: at for at, op in enumerate(ops)}
        self._producers = {name: op for op in ops for name in op.outputs}
        self._readers: dict[str, list[Op]] = {}
        for op in ops:
            for name in op.inputs:
                self._readers.setdefault(name, []).append(op)
        self._returned = {value.name for value in graph.outputs}
        self._fed = {value.name for value in graph.inputs}
        self._layers = {layer.op: (layer.name, weight.name) for weight in graph.weights() for layer in weight.layers}

    def branch(self, op: Op) -> ResidualBranch | None:
        """The branch that an op adds to what it is computed of, if it does."""
        if op.kind is not Kind.BINARY or op.function != "add" or len(op.inputs) != 2 or op.inputs[0] == op.inputs[1]:
            return None
        for position, end in enumerate(op.inputs):
            stream = op.inputs[1 - position]
            if stream not in self._producers and stream not in self._fed:
                continue
            alone = end in self._producers and self._readers[end] == [op] and end not in self._returned
            if alone and self._depends(end, stream):
                return self._made(op, position, stream, end)
        return None

    def _depends(self, value: str, source: str) -> bool:
        first = self._order[self._producers[source].name] if source in self._producers else -1
        todo, seen = [value], {value}
        while todo:
            op = self._producers.get(todo.pop())
            if op is None or self._order[op.name] <= first:
                continue
            for name in op.inputs:
                if name == source:
                    return True
                if name not in seen:
                    seen.add(name)
                    todo.append(name)
        return False

    def _made(self, op: Op, position: int, stream: str, end: str) -> ResidualBranch:
        only = self._only(end, op)
        pairs = [self._layers[name] for name in sorted(only, key=self._order.__getitem__) if name in self._layers]
        weights = tuple(dict.fromkeys(weight for _, weight in pairs))
        names = [layer for layer, _ in pairs]
        return ResidualBranch(_name(names), op.name, position, stream, end, op.outputs[0], frozenset(only), weights)

    def _only(self, end: str, reader: Op) -> set[str]:
        """The ops that nothing needs once the reader does without the end."""
        found: set[str] = set()
        todo = [self._producers[end]]
        while todo:
            op = todo.pop()
            used = [one for name in op.outputs for one in self._readers.get(name, ())]
            free = all(one.name in found or (one is reader and name == end) for name, one in self._uses(op))
            if op.name in found or not used or not free or self._returned & set(op.outputs):
                continue
            found.add(op.name)
            todo += [self._producers[name] for name in op.inputs if name in self._producers]
        return found

    def _uses(self, op: Op) -> list[tuple[str, Op]]:
        return [(name, one) for name in op.outputs if name for one in self._readers.get(name, ())]


def _name(layers: Sequence[str]) -> str:
    """What layers have in common before a dot, else the first and the last."""
    if len(layers) < 2:
        return layers[0] if layers else ""
    parts = [layer.split(".") for layer in layers]
    count = 0
    while all(len(one) > count + 1 and one[count] == parts[0][count] for one in parts):
        count += 1
    return ".".join(parts[0][:count]) or f"{layers[0]}..{layers[-1]}"
