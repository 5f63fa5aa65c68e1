"""Whether queries and keys of an attention are made of the same value."""

from collections.abc import Iterator

from qcc.ir.graph.attention import Attention
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import LAYER_KINDS, Kind, Op

MOVES = (Kind.RESHAPE, Kind.TRANSPOSE)


class Origins:
    """Of which values a graph's attentions are made."""

    def __init__(self, graph: Graph) -> None:
        self._makers = {name: op for op in graph.ops() for name in op.outputs if name}

    def is_self(self, one: Attention) -> bool:
        """Queries and keys come of layers that read the same values."""
        queries, keys = (frozenset(self._read(operand.value)) for operand in (one.queries, one.keys))
        return bool(queries) and queries == keys

    def _read(self, value: str) -> Iterator[str]:
        """What the next layers before a value multiply, as it was before it was moved."""
        seen, todo = {value}, [value]
        while todo:
            op = self._makers.get(todo.pop())
            if op is None:
                continue
            if op.kind in LAYER_KINDS:
                yield self._unmoved(op.inputs[0])
                continue
            fresh = [name for name in op.inputs if name and name not in seen]
            seen.update(fresh)
            todo += fresh

    def _unmoved(self, value: str) -> str:
        op: Op | None = self._makers.get(value)
        while op is not None and op.kind in MOVES:
            value = op.inputs[0]
            op = self._makers.get(value)
        return value
