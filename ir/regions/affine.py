"""Parts of a graph in which every op is affine in what it computes of one value, whatever the ops are."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op, Value
from qcc.ir.regions.flow import Flow
from qcc.ir.vocabulary.find import OPS

MOST_OPS = 64  # of a part; a layer with eight adapters has about fifty


@dataclass(frozen=True)
class LinearRegion:
    """A value that is computed of another and of constants alone, by ops each of which is affine in what it reads.

    Args:
        source: what it is computed of.
        end: the value.
        ops: that only the end needs.
        shape: ``(in, out)``: how many channels source and end have.
        freed_bytes: of the constants that only those ops read.
        adds: constants are added in it.
    """

    source: str
    end: str
    ops: frozenset[str]
    shape: tuple[int, int]
    freed_bytes: int
    adds: bool

    @property
    def place(self) -> tuple[str, str]:
        """What tells it from the other regions of its graph."""
        return self.source, self.end


@dataclass(frozen=True)
class ChannelAxis:
    """Along which axis values have channels, and what may lie between two of them.

    Args:
        axis: of the channels.
        is_border: a value may be source or end.
        joins: a source and an end go together.
        takes: an op may lie between.
    """

    axis: int
    is_border: Callable[[Value], bool]
    joins: Callable[[Value, Value], bool]
    takes: Callable[[Op], bool]

    def channels(self, value: Value) -> int:
        """How many a value has that may be a border."""
        return int((value.shape or ())[self.axis])  # type: ignore[arg-type]


class RegionFinder:
    """The regions of a graph, and what it computes of constants."""

    def __init__(self, graph: Graph, flow: Flow, along: ChannelAxis) -> None:
        self._graph, self._flow, self._along = graph, flow, along
        self._makers: dict[str, Op] = {}
        for op in flow.ops:
            if op.kind is not Kind.OTHER and any(op.inputs) and all(map(self._is_fixed, filter(None, op.inputs))):
                self._makers.update(dict.fromkeys(op.outputs, op))

    def regions(self, last: Op) -> Iterator[LinearRegion]:
        """The regions that end with an op: wherever all that it depends on is one value, constants aside."""
        end = self._graph.value(last.outputs[0])
        if not self._along.is_border(end):
            return
        waiting, inside = {end.name}, dict[str, Op]()
        while len(inside) < MOST_OPS:
            latest = max(waiting, key=self._position)
            op = self._flow.maker(latest)
            reads = None if op is None or not self._along.takes(op) else self._variables(op)
            if op is None or not reads or latest != op.outputs[0]:
                return
            inside[op.name] = op
            waiting = (waiting - {latest}) | set(reads)
            if len(waiting) == 1 and len(inside) > 1:
                start = self._graph.value(next(iter(waiting)))
                if self._along.is_border(start) and start.dtype == end.dtype and self._along.joins(start, end):
                    yield self._region(last, inside, start, end)

    def _is_fixed(self, name: str) -> bool:
        return name in self._makers or self._flow.constant(name) is not None

    def _position(self, name: str) -> int:
        maker = self._flow.maker(name)
        return -1 if maker is None else self._flow.position[maker.name]

    def _variables(self, op: Op) -> Sequence[str]:
        """What an op is affine in of what it reads, the rest being constants; nothing where it is not."""
        at = [position for position, name in enumerate(op.inputs) if name and not self._is_fixed(name)]
        names = tuple(dict.fromkeys(op.inputs[position] for position in at))
        known = OPS.get((op.kind, op.function))
        if not names or known is None or len(op.outputs) != 1:
            return ()
        fits = {"all": True, "one": len(at) == 1, "first": at == [0], "": False}
        return names if fits[known.affine] else ()

    def _region(self, last: Op, inside: Mapping[str, Op], start: Value, end: Value) -> LinearRegion:
        fixed = self._behind(name for op in inside.values() for name in op.inputs)
        ops = self._only(last, [*inside.values(), *fixed.values()])
        held = {name for op in (*inside.values(), *fixed.values()) if op.name in ops for name in op.inputs}
        arrays = {name: self._flow.constant(name) for name in held}
        freed = (array.nbytes for name, array in arrays.items() if array is not None and self._is_freed(name, ops))
        adds = any(map(self._adds, inside.values()))
        shape = self._along.channels(start), self._along.channels(end)
        return LinearRegion(start.name, end.name, ops, shape, sum(freed), adds)

    def _adds(self, op: Op) -> bool:
        """A constant is a term of what the op makes, be it the bias of a product."""
        terms = op.inputs if OPS[op.kind, op.function].affine == "all" else op.inputs[2:]
        return any(name and self._is_fixed(name) for name in terms)

    def _is_freed(self, name: str, ops: Container[str]) -> bool:
        return all(reader.name in ops for reader in self._flow.readers(name))

    def _behind(self, names: Iterable[str]) -> dict[str, Op]:
        """The ops that compute some values of constants."""
        found, todo = dict[str, Op](), list(names)
        while todo:
            op = self._makers.get(todo.pop())
            if op is not None and op.name not in found:
                found[op.name] = op
                todo += op.inputs
        return found

    def _only(self, last: Op, ops: Iterable[Op]) -> frozenset[str]:
        """Which of some ops nothing but the last needs."""
        found = {last.name}
        for op in sorted(ops, key=lambda one: -self._flow.position[one.name]):
            inner = not any(map(self._flow.is_returned, op.outputs))
            if inner and all(reader.name in found for name in op.outputs for reader in self._flow.readers(name)):
                found.add(op.name)
        return frozenset(found)
