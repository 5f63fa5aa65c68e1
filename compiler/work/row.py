"""A row of what a graph takes: of its ops, and of weights' layers under an action."""

from collections.abc import Mapping, Sequence

from qcc.compiler.plan.costs import Meter
from qcc.compiler.work.count import Count
from qcc.ir.graph.ops import BITS_OF, Op, Weight
from qcc.passes.encode import Encode


class Row:
    """One row, of one graph."""

    name = ""
    note = ""

    def __init__(self, count: Count, half: bool) -> None:
        self.count, self.half = count, half

    def rest(self) -> float:
        """What the ops take that read no weight."""
        return sum(self.op(op) for op in self.count.ops if op.name not in self.count.layers)

    def of(self, weight: Weight, action: Encode | None) -> float:
        """What a weight's layers take."""
        raise NotImplementedError

    def told(self, before: "Row", actions: Mapping[str, Encode]) -> str:
        """What is worth knowing: where it is from; ``before`` is the same row of the model as it came."""
        return self.note

    def op(self, op: Op) -> float:
        """What an op takes that reads no weight."""
        raise NotImplementedError

    def bytes_of(self, names: Sequence[str]) -> float:
        """Of values."""
        return sum(self.count.sizes.size_bytes(name, self.half) for name in names)

    def sizes_of(self, actions: Mapping[str, Encode]) -> dict[str, float]:
        """Bytes of each value that is written, by name."""
        found = {
            name: self.count.sizes.size_bytes(name, self.half)
            for op in self.count.ops
            for name in self.count.writes(op)
        }
        for weight in self.count.weights:
            whole = self.whole_numbers(weight, actions.get(weight.name))
            found |= {layer.output: float(self.count.sizes.count(layer.output)) for layer in weight.layers if whole}
        return found

    @staticmethod
    def whole_numbers(weight: Weight, action: Encode | None) -> bool:
        """What a weight's layers make is rounded with them."""
        return action is not None and action.activations is not None and action.form.rounds_results(weight)

    def written(self, weight: Weight, action: Encode | None) -> float:
        """Bytes of what a weight's layers write: one a number where that is rounded with them."""
        made = [layer.output for layer in weight.layers]
        whole = self.whole_numbers(weight, action)
        return float(sum(map(self.count.sizes.count, made))) if whole else self.bytes_of(made)

    def read(self, weight: Weight, action: Encode | None) -> float:
        """Bytes of the values that a weight's layers read."""
        read = [layer.input for layer in weight.layers if layer.input]
        whole = action is not None and action.activations is not None
        return float(sum(map(self.count.sizes.count, read))) if whole else self.bytes_of(read)

    def held(self, weight: Weight, action: Encode | None) -> float:
        """Bytes of a weight as it lies in memory while the model runs."""
        if action is not None and (action.form.packed or weight.kinds == {"embedding"}):
            stored = float(action.form.stored_bytes(action.encoding, weight.shape))
            return stored if action.form.takes_steps or not action.form.rounds else max(stored, weight.params)
        return weight.params * (2.0 if self.half else BITS_OF[weight.dtype] / 8)

    def kept(self, weight: Weight, action: Encode | None) -> float:
        """The share of a weight's products that are done: of blocks, those that are stored."""
        if action is None or not action.form.packed or action.encoding.tile is None:
            return 1.0
        rows, columns = action.encoding.tile
        stored = action.encoding.tiles_kept(weight.shape) * rows * columns
        return min(stored / max(weight.params, 1), 1.0)


def meter_of(before: Row, now: Row) -> Meter:
    """The meter of a row, of the graph as it came and of that whose weights are chosen."""
    whole = before.rest() + sum(before.of(weight, None) for weight in before.count.weights)
    return Meter(now.name, whole, now.rest(), now.of, lambda actions: now.told(before, actions))
