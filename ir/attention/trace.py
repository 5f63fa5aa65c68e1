"""Where queries, keys and values come from: the way back from a product to what heads, turns and earlier runs hide."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qcc.ir.attention.paths import Paths
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op

DEEPEST = 40  # ops between a product and what it multiplies
MOST_TURNS = 40  # ops of a rotary embedding
_TURNS = {
    Kind.BINARY: frozenset(("add", "sub", "mul")),
    Kind.ELEMENTWISE: frozenset(("neg", "identity", "cast")),
    Kind.CONCAT: frozenset(("concat",)),
    Kind.GATHER: frozenset(("slice", "gather", "scatter_nd", "scatter")),
    Kind.SPLIT: frozenset(("split", "unbind")),
    Kind.RESHAPE: frozenset(("reshape", "squeeze", "unsqueeze")),
    Kind.TRANSPOSE: frozenset(("transpose",)),
}


@dataclass(frozen=True)
class Turn:
    """Ops that might turn channels: what they make of what, with which tables."""

    source: str
    result: str
    tables: tuple[str, ...]


@dataclass(frozen=True)
class TraceStep:
    """One step of the way, from the product back: ``what`` made ``result`` of ``source``."""

    what: str
    source: str
    result: str
    value: str = ""
    turn: Turn | None = None


class Tracer:
    """Traces operands of one graph back."""

    def __init__(self, graph: Graph, paths: Paths, number: Callable[[str], float | None]) -> None:
        """``number`` is what a constant of one element holds."""
        self._graph, self._flow, self._learned, self._number = graph, paths.flow, paths.learned, number
        self._varies = paths.varies
        self._fed = {value.name for value in graph.inputs}

    def rank(self, value: str) -> int | None:
        """How many axes a value has."""
        shape = self._graph.value(value).shape
        return None if shape is None else len(shape)

    def is_flag(self, value: str) -> bool:
        """A value holds booleans."""
        return self._graph.value(value).dtype == "bool"

    def steps(self, value: str) -> Iterator[TraceStep]:
        """The way back as far as it is told."""
        for _ in range(DEEPEST):
            op = self._flow.maker(value)
            step = None if op is None or len(op.outputs) != 1 else self._step(op) or self._turned(op)
            if step is None:
                return
            yield step
            value = step.source

    def _step(self, op: Op) -> TraceStep | None:
        result = op.outputs[0]
        if op.kind in (Kind.RESHAPE, Kind.TRANSPOSE):
            return TraceStep("repeat" if op.function == "expand" else "move", op.inputs[0], result)
        if op.kind is Kind.ELEMENTWISE and op.function in ("identity", "cast"):
            return TraceStep("move", op.inputs[0], result)
        if op.kind is Kind.BINARY and op.function in ("mul", "div") and len(op.inputs) == 2:
            return self._scaled(op)
        if op.kind is Kind.CONCAT and len(op.inputs) == 2 and op.inputs[0] in self._fed:
            return TraceStep("past", op.inputs[1], result, value=op.inputs[0])
        return None

    def _scaled(self, op: Op) -> TraceStep | None:
        for at, other in enumerate(op.inputs):
            if self._is_single(other) and (op.function == "mul" or at == 1) and op.inputs[1 - at] in self._learned:
                if self._varies(other):
                    return None
                return TraceStep(op.function, op.inputs[1 - at], op.outputs[0], value=other)
        return None

    def _is_single(self, name: str) -> bool:
        """One number, stored or computed of sizes."""
        shape = self._graph.value(name).shape
        return name not in self._learned and (
            self._number(name) is not None or (shape is not None and set(shape) <= {1})
        )

    def _turned(self, last: Op) -> TraceStep | None:
        """A piece whose ends are of one value that comes of layers, beside tables that do not."""
        found = self.turn(last)
        return None if found is None else TraceStep("turn", found.source, found.result, turn=found)

    def turn(self, last: Op) -> Turn | None:
        """The smallest piece that ends with an op and multiplies one value by two tables or more."""
        waiting, tables, inside = {last.outputs[0]}, dict[str, None](), 0
        while inside < MOST_TURNS:
            latest = max(waiting, key=self._position)
            op = self._flow.maker(latest)
            if op is None or op.function not in _TURNS.get(op.kind, ()):
                return None
            inside += 1
            reads = [name for name in op.inputs if name in self._learned]
            waiting = (waiting - set(op.outputs)) | set(reads)
            if op.kind is Kind.BINARY and op.function == "mul":
                tables.update(
                    (name, None) for name in op.inputs if name not in self._learned and not self._is_single(name)
                )
            if len(waiting) == 1 and len(tables) >= 2:
                return Turn(next(iter(waiting)), last.outputs[0], tuple(tables))
            if not waiting:
                return None
        return None

    def _position(self, name: str) -> int:
        maker = self._flow.maker(name)
        return -1 if maker is None else self._flow.position[maker.name]
