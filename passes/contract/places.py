"""Which values are rounded where a layer multiplies whole numbers, and what shows their ranges.

A value is encoded once, and all that run on whole numbers read it so: layers that are asked for, and between them sums,
pools and what only moves numbers. A runtime then computes a chain of them without leaving integers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from qcc.ir.errors import Refused
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Kind, Layer, Op, Weight
from qcc.ir.regions.flow import Flow
from qcc.passes.contract.magnitudes import Magnitudes

RIDES = frozenset((Kind.BINARY, Kind.CONCAT, Kind.POOL, Kind.RESHAPE, Kind.TRANSPOSE))
"""The kinds of op that runtimes run on whole numbers, if what they read and make is encoded."""
TWO = 2  # dimensions
MOVES = frozenset((Kind.RESHAPE, Kind.TRANSPOSE))


@dataclass(frozen=True)
class Place:
    """A value to encode.

    Args:
        value: its name.
        readers: ops and positions in their ``inputs``; None for all, so that nothing reads it as it was.
        seen: the values whose magnitudes say how.
    """

    value: str
    readers: tuple[tuple[str, int], ...] | None
    seen: tuple[str, ...]

    def magnitudes(self, known: Mapping[str, Magnitudes]) -> Magnitudes | None:
        """Those that it goes by, if they were gathered."""
        found = [known[name] for name in self.seen if name in known]
        return reduce(Magnitudes.__add__, found) if len(found) == len(self.seen) else None


def places(flow: Flow, weight: Weight, form: Form) -> tuple[Place, ...]:
    """The values around a weight's layers that a form needs encoded, each once.

    Raises:
        Refused: the layers are such that nothing multiplies whole numbers in them.
    """
    if not form.rounds_results(weight):
        values = dict.fromkeys(layer.input for layer in weight.layers)
        readers = {one: tuple((layer.op, 0) for layer in weight.layers if layer.input == one) for one in values}
        return tuple(Place(one, readers[one], tuple(sorted(values))) for one in values)
    ops = {layer.op: _op(flow, layer) for layer in weight.layers}
    if len({op.inputs[1] for op in ops.values()}) > 1:
        raise Refused("its layers read it in several ways, and no product of integers takes that")
    found: dict[str, Place] = {}
    for value in dict.fromkeys(layer.input for layer in weight.layers):
        read = tuple(use for op in flow.readers(value) for use in _uses(op, value, ops))
        found[value] = Place(value, read, (_origin(flow, value),))
    for op in ops.values():
        value = _result(flow, op)
        found[value] = Place(value, None, (value,))
    return tuple(found.values())


def _op(flow: Flow, layer: Layer) -> Op:
    """The op of a layer that multiplies a value of the graph, and adds nothing but a constant."""
    op = flow.ops[flow.position[layer.op]] if layer.op in flow.position else None
    if op is None or op.inputs[:1] != (layer.input,):
        raise Refused("it is read in a branch or a loop, where nothing is rounded")
    if op.function == "conv_transpose" and not _interleaves(op):
        raise Refused("transposed convolutions take pads that are said, and one stride for both axes; in three it is 1")
    if len(op.inputs) > 2 and op.inputs[2] and flow.constant(op.inputs[2]) is None:
        raise Refused("its bias is computed as the model runs, which no product of integers takes")
    return op


def _interleaves(op: Op) -> bool:
    """It is a plain convolution whose results are interleaved in a way that needs no sizes."""
    strides = op.attributes.get("strides")
    if not isinstance(strides, tuple) or "pads" not in op.attributes:
        return False
    return set(strides) == {1} or (len(strides) <= TWO and len(set(strides)) == 1)


def _uses(op: Op, value: str, asked: Mapping[str, Op]) -> list[tuple[str, int]]:
    """Where an op reads a value rounded: a layer that is asked for, or what rides along."""
    positions = [0] if op.name in asked else range(len(op.inputs)) if op.kind in RIDES else []
    return [(op.name, at) for at in positions if op.inputs[at] == value]


def _result(flow: Flow, op: Op) -> str:
    """What a layer makes, behind a function that cuts off below zero: that is done by rounding."""
    value = op.outputs[0]
    if op.function == "conv_transpose":
        return value  # it is interleaved before anything else is done
    behind = flow.only_reader(value)
    if behind is None or not behind.outputs or behind.inputs[:1] != (value,):
        return value
    cuts = behind.function == "relu" or (behind.function == "clip" and behind.attributes.get("min") == 0)
    return behind.outputs[0] if behind.kind is Kind.ELEMENTWISE and cuts else value


def _origin(flow: Flow, value: str) -> str:
    """Where numbers come from that were only moved, or of which the largest were taken: both have one range."""
    while (op := flow.maker(value)) is not None and (op.kind in MOVES or op.function == "max_pool"):
        if flow.constant(op.inputs[0]) is not None:
            return value
        value = op.inputs[0]
    return value
