"""What the ops of a graph multiply, write and read for a sample."""

from collections import Counter
from collections.abc import Collection
from functools import cached_property

from qcc.compiler.work.sizes import ValueSizes
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op, Weight

MOVED = (Kind.RESHAPE, Kind.TRANSPOSE, Kind.CONCAT, Kind.SPLIT, Kind.GATHER, Kind.CONSTANT)
"""Kinds that compute nothing."""
IN_PLACE = (Kind.ELEMENTWISE, Kind.BINARY)
"""Kinds that write over what they read, where nothing else reads it."""


class Count:
    """Of one graph at the sizes of one sample."""

    def __init__(self, graph: Graph, sizes: ValueSizes) -> None:
        self.graph, self.sizes = graph, sizes
        self.ops = graph.ops()

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """The graph's."""
        return self.graph.weights()

    @cached_property
    def layers(self) -> frozenset[str]:
        """The ops that read a weight, by name."""
        return frozenset(layer.op for weight in self.weights for layer in weight.layers)

    def passes(self, weight: Weight) -> float:
        """How many times a weight's matrix is multiplied; of a table, the rows that are looked up."""
        rows, columns = weight.shape
        each = {Kind.EMBEDDING: columns}
        return sum(self.sizes.count(one.output) / max(each.get(one.kind, rows), 1) for one in weight.layers)

    def multiplied(self, weight: Weight) -> float:
        """Multiplications, each with its addition, of a weight's layers."""
        if weight.kinds == {"embedding"}:
            return 0.0
        times = (self.sizes.count(one.output) for one in weight.layers if one.kind is not Kind.EMBEDDING)
        return weight.params * sum(times) / max(weight.shape[0], 1)

    def share_read(self, weight: Weight) -> float:
        """Of a weight's bytes, those that a sample reads: all, or the rows of a table that are looked up."""
        return min(self.passes(weight) / max(weight.shape[0], 1), 1.0) if weight.kinds == {"embedding"} else 1.0

    def products(self, op: Op) -> float:
        """Multiplications of an op that multiplies two values."""
        made = sum(map(self.sizes.count, op.outputs))
        shapes = [self.sizes.shape(name) for name in op.inputs]
        if op.kind in (Kind.MATMUL, Kind.LINEAR) and shapes and shapes[0]:
            return float(made * shapes[0][-1])
        if op.kind is Kind.ATTENTION and len(shapes) > 1 and len(shapes[1]) > 1:
            return 2.0 * made * shapes[1][-2]
        return 0.0

    def computed(self, op: Op) -> float:
        """Numbers that an op computes one by one."""
        return 0.0 if op.kind in MOVED or self.products(op) else float(sum(map(self.sizes.count, op.outputs)))

    def writes(self, op: Op) -> tuple[str, ...]:
        """What an op writes, beside what it leaves where it was."""
        if op.kind in (Kind.RESHAPE, Kind.CONSTANT) or (op.kind in IN_PLACE and self._alone(op)):
            return ()
        return tuple(name for name in op.outputs if name)

    def reads(self, op: Op) -> tuple[str, ...]:
        """The computed values that an op reads from where others wrote them."""
        if op.kind in (Kind.RESHAPE, Kind.CONSTANT):
            return ()
        alone = self._alone(op) if op.kind in IN_PLACE else ()
        return tuple(name for name in self._values(op) if name not in alone)

    def _alone(self, op: Op) -> Collection[str]:
        """The values of an op's size that it alone reads: it is done along with what made one of them."""
        size = self.sizes.shape(op.outputs[0]) if op.outputs else ()
        found = [one for one in self._values(op) if self._readers[one] == 1 and self.sizes.shape(one) == size]
        return tuple(found[:1])

    def _values(self, op: Op) -> list[str]:
        return [name for name in op.inputs if name and self.graph.constant(name) is None and name not in self._fed]

    @cached_property
    def _fed(self) -> frozenset[str]:
        return frozenset(value.name for value in self.graph.inputs)

    @cached_property
    def _readers(self) -> Counter[str]:
        kept = [value.name for value in self.graph.outputs]
        return Counter([name for op in self.ops for name in op.inputs if name] + kept)
