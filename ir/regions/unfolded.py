"""What hangs beside a model's layers and is no part of their weights, with the reason."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import BITS_OF, Kind, Layer, Op, Weight
from qcc.ir.regions.flow import Flow
from qcc.ir.vocabulary.find import OPS

MOST_OPS = 24  # between two products of a branch
NARROW = 2  # how much wider than its middle a branch is at both ends
BOUNDED = ("sigmoid", "hard_sigmoid", "tanh")
MOVES = (Kind.RESHAPE, Kind.TRANSPOSE, Kind.SPLIT)
CARRYING = (Kind.BINARY, Kind.ELEMENTWISE)
HANDING_ON = ("Tile", "tile", "repeat", "slice")
PREFIX = "constant rows among keys and values: feed them as a cache, where the model has one"
PROMPT = "constant rows among what is computed (a prompt, a class token): they are read like inputs"


@dataclass(frozen=True)
class UnfoldedBranch:
    """A part of a graph that is no product and therefore stays.

    Args:
        name: of its first layer, or of the value where it joins.
        what: it is: ``adapter``, ``gate``, ``prefix`` or ``prompt``.
        reason: why it stays.
        weights: the names of its weights.
    """

    name: str
    what: str
    reason: str
    weights: tuple[str, ...] = ()


def unfolded_branches(graph: Graph) -> list[UnfoldedBranch]:
    """Adapters with an activation between their products, gates that depend on data, and constant rows.

    What is linear is none of them: whether it is one product is for `linear_regions` to say.
    """
    search = _Search(graph)
    found = [one for op in search.flow.ops for one in search.at(op)]
    return list({(one.name, one.what): one for one in found}.values())


class _Search:
    def __init__(self, graph: Graph) -> None:
        self.flow, self._graph = Flow(graph), graph
        uses = [(weight, layer) for weight in graph.weights() for layer in weight.layers]
        self._layers: Mapping[str, tuple[Weight, Layer]] = {layer.op: (weight, layer) for weight, layer in uses}

    def at(self, op: Op) -> Iterator[UnfoldedBranch]:
        """What joins the rest of the graph at an op."""
        computed = [name for name in op.inputs if name and self._is_computed(name)]
        if op.kind is Kind.CONCAT and computed:
            yield from self._rows(op)
        if op.kind is Kind.BINARY and len(computed) == 2:
            for name, other in (computed, reversed(computed)):
                part = self._adapter(name) if op.function == "add" else None
                part = self._gate(name, other) if op.function == "mul" else part
                if part is not None:
                    yield part

    def _adapter(self, value: str) -> UnfoldedBranch | None:
        """Two products with a narrow middle, and something between that is none."""
        up = self._layer(self._plain(value))
        if up is None or up[1].kind is not Kind.LINEAR:
            return None
        between, ends = self._between(up[1].input)
        down = self._layer(ends[0]) if len(ends) == 1 else None
        if down is None or down[1].kind is not Kind.LINEAR:
            return None
        middle = down[0].shape[0]
        if middle != up[0].shape[1] or NARROW * middle > min(down[0].shape[1], up[0].shape[0]):
            return None
        bent = next((op for op in reversed(between) if not self._is_affine(op)), None)
        if bent is None:
            return None
        reason = f"`{bent.function}` lies between its products of {middle:,} channels, so they are not one"
        return UnfoldedBranch(down[1].name, "adapter", reason, (down[0].name, up[0].name))

    def _gate(self, value: str, gated: str) -> UnfoldedBranch | None:
        """What is computed of layers and then bounded, and multiplies something else."""
        bound = self.flow.maker(self._plain(value))
        if bound is None or not (bound.function in BOUNDED or bound.kind is Kind.SOFTMAX):
            return None
        if self._plain(gated) in (self._plain(bound.inputs[0]), bound.outputs[0]):
            return None  # an activation that multiplies what it is of
        other = self.flow.maker(self._plain(gated))
        if bound.function == "tanh" and other is not None and other.function in BOUNDED[:-1]:
            return None  # the other one is the gate
        _, ends = self._between(bound.inputs[0])
        layers = [layer for one in ends if (layer := self._layer(one)) is not None]
        if not layers:
            return None
        reason = f"`{bound.function}` of `{layers[0][1].name}` multiplies, which depends on data"
        return UnfoldedBranch(layers[0][1].name, "gate", reason, tuple(weight.name for weight, _ in layers))

    def _rows(self, op: Op) -> Iterator[UnfoldedBranch]:
        if any(self._are_rows(name) for name in op.inputs):
            is_prefix = self._meets_others(op.outputs[0])
            yield UnfoldedBranch(op.outputs[0], *(("prefix", PREFIX) if is_prefix else ("prompt", PROMPT)))

    def _are_rows(self, name: str) -> bool:
        """Floats that no data changes, be there one for each sample."""
        array = self.flow.constant(name)
        if array is not None:
            return array.dtype.name in BITS_OF and array.ndim > 1 and array.size > 1
        maker = self.flow.maker(name)
        carried = "" if maker is None else self._carried(maker)
        return bool(carried) and self._are_rows(carried)

    def _meets_others(self, value: str) -> bool:
        """It is multiplied by something else that is computed."""
        todo, seen = [value], set[str]()
        while todo and len(seen) < MOST_OPS:
            value = todo.pop()
            seen.add(value)
            for op in self.flow.readers(value):
                others = all(map(self._is_computed, op.inputs[:2])) and op.name not in self._layers
                if op.kind in (Kind.MATMUL, Kind.ATTENTION) and others:
                    return True
                todo += [name for name in op.outputs if self._carried(op) == value and name not in seen]
        return False

    def _plain(self, value: str) -> str:
        """What a value is before constants were added to it or multiplied with, and before it was moved."""
        while (op := self.flow.maker(value)) is not None and (carried := self._carried(op)):
            value = carried
        return value

    def _carried(self, op: Op) -> str:
        """The value that an op hands on, moved, scaled or shifted by constants; empty where it does something else."""
        if op.name in self._layers:
            return ""
        if self._moves(op):
            return op.inputs[0]
        computed = [name for name in op.inputs if self._is_computed(name)]
        return computed[0] if len(computed) == 1 and op.kind in CARRYING and self._is_affine(op) else ""

    def _moves(self, op: Op) -> bool:
        return (op.kind in MOVES or op.function in HANDING_ON) and bool(op.inputs)

    def _between(self, value: str) -> tuple[list[Op], list[str]]:
        """The ops behind a value up to layers, latest first, and the values that they start at."""
        found, ends, todo = dict[str, Op](), list[str](), [value]
        while todo:
            name = todo.pop()
            op = self.flow.maker(name)
            if op is None or op.name in self._layers or len(found) > MOST_OPS:
                ends += [name] if name not in ends else []
            elif op.name not in found:
                found[op.name] = op
                todo += [one for one in op.inputs if one and self._is_computed(one)]
        ordered = sorted(found.values(), key=lambda op: -self.flow.position[op.name])
        return ordered, ends

    def _layer(self, value: str) -> tuple[Weight, Layer] | None:
        op = self.flow.maker(value)
        return None if op is None else self._layers.get(op.name)

    def _is_computed(self, name: str) -> bool:
        return self.flow.constant(name) is None and bool(name)

    def _is_affine(self, op: Op) -> bool:
        known = OPS.get((op.kind, op.function))
        computed = [at for at, name in enumerate(op.inputs) if self._is_computed(name)]
        if known is None or not known.affine:
            return False
        fits: Mapping[str, bool] = {"all": True, "one": len(computed) == 1, "first": computed == [0]}
        return fits[known.affine]
