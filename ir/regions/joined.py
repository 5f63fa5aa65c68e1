"""What is added to what a layer makes."""

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op

_MOVES = (Kind.RESHAPE, Kind.TRANSPOSE)


class Joins:
    """The sums of a graph that values go into."""

    def __init__(self, graph: Graph) -> None:
        ops = graph.ops()
        self._graph = graph
        self._computed = {name for op in ops for name in op.outputs} | {value.name for value in graph.inputs}
        self._returned = {value.name for value in graph.outputs}
        self._readers: dict[str, list[Op]] = {}
        for op in ops:
            for name in op.inputs:
                self._readers.setdefault(name, []).append(op)

    def beside(self, value: str) -> tuple[str, ...] | None:
        """The computed values that are added to one before anything else is done with it, biases apart.

        None where something is added once it has another shape or scale: what, and how much of it, is not told.
        """
        found: list[str] = []
        changed = False
        while (op := self._reader(value)) is not None:
            others = [name for name in op.inputs if name != value and name in self._computed]
            if op.kind is Kind.BINARY and op.function == "add" and len(op.inputs) == 2:
                if others and changed:
                    return None
                found += others
            elif op.kind in _MOVES or (op.kind is Kind.BINARY and not others):
                changed = True
            else:
                break
            value = op.outputs[0]
        return tuple(found)

    def total(self, value: str) -> str:
        """The sum that a value goes into before anything else is done with it; itself where it goes into none."""
        while (op := self._reader(value)) is not None:
            if op.kind is not Kind.BINARY or op.function != "add" or len(op.inputs) != 2:
                break
            value = op.outputs[0]
        return value

    def _reader(self, value: str) -> Op | None:
        """What reads a value, if it is all that does."""
        readers = self._readers.get(value, [])
        return readers[0] if len(readers) == 1 and value not in self._returned else None
