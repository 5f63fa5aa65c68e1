"""Which ops read what, and the closed pieces of a graph behind a value."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Op
from qcc.ir.vocabulary.find import OPS

MOST_OPS = 24  # of a piece: norms in pieces have about ten


@dataclass(frozen=True)
class Piece:
    """Ops that compute one value from another and constants, and make nothing else that is read.

    ``escapes`` says that others read the source too.
    """

    source: str
    result: str
    ops: tuple[Op, ...]
    escapes: bool


class Flow:
    """The ops of a graph by what they read and make."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ops = graph.ops()
        self.position = {op.name: at for at, op in enumerate(self.ops)}
        self._outputs = {value.name for value in graph.outputs}
        self._readers: dict[str, list[int]] = {}
        for at, op in enumerate(self.ops):
            for name in dict.fromkeys(op.inputs):
                self._readers.setdefault(name, []).append(at)
        self._makers = {name: at for at, op in enumerate(self.ops) for name in op.outputs}
        self._constants: dict[str, Array | None] = {}

    def constant(self, name: str) -> Array | None:
        """As the graph's own."""
        if name not in self._constants:
            self._constants[name] = self.graph.constant(name)
        return self._constants[name]

    def readers(self, value: str) -> list[Op]:
        """The ops that read a value, once each."""
        return [self.ops[at] for at in self._readers.get(value, ())]

    def maker(self, value: str) -> Op | None:
        """The op that makes a value; none of what is fed or stored."""
        at = self._makers.get(value)
        return None if at is None else self.ops[at]

    def is_returned(self, value: str) -> bool:
        """The graph returns the value."""
        return value in self._outputs

    def only_reader(self, value: str) -> Op | None:
        """The one op that sees a value, if there is one."""
        readers = self.readers(value)
        return readers[0] if len(readers) == 1 and not self.is_returned(value) else None

    def pieces(self, source: str, claimed: Container[str]) -> Iterator[Piece]:
        """The pieces that start at a value and consist of plain arithmetic, those that end last first.

        Args:
            source: the value.
            claimed: names of ops that are none of theirs.
        """
        grown = self._grow(source, claimed)
        makers = {op.outputs[0]: op for op in grown}
        for last in reversed(grown):
            names = {last.name}
            for op in reversed(grown):
                if op.name in names:
                    names.update(makers[name].name for name in op.inputs if name in makers)
            ops = tuple(op for op in grown if op.name in names)
            if all(self._is_inner(op.outputs[0], names) for op in ops[:-1]):
                yield Piece(source, last.outputs[0], ops, not self._is_inner(source, names))

    def _is_inner(self, value: str, names: Container[str]) -> bool:
        return not self.is_returned(value) and all(op.name in names for op in self.readers(value))

    def _grow(self, source: str, claimed: Container[str]) -> list[Op]:
        """Ops that depend on the value and constants alone, in order."""
        made, seen, found = {source}, set[int](), list[Op]()
        todo = list(self._readers.get(source, ()))
        heapify(todo)
        while todo and len(found) < MOST_OPS:
            at = heappop(todo)
            op = self.ops[at]
            if at in seen or op.name in claimed or not self._is_part(op, made):
                continue
            seen.add(at)
            found.append(op)
            made.add(op.outputs[0])
            for reader in self._readers.get(op.outputs[0], ()):
                heappush(todo, reader)
        return found

    def _is_part(self, op: Op, made: Container[str]) -> bool:
        """Plain arithmetic of which all is known, on what is made already."""
        known = OPS.get((op.kind, op.function))
        if known is None or not known.plain or not known.names <= op.attributes.keys():
            return False
        if not op.outputs or any(name in self._readers or self.is_returned(name) for name in op.outputs[1:] if name):
            return False
        return all(not name or name in made or self.constant(name) is not None for name in op.inputs)
