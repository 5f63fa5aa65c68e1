"""Which values are rounded where a layer multiplies whole numbers, and what shows their ranges.

A value is encoded once, and all layers that run on whole numbers read it so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from qcc.ir.errors import Refused
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Layer, Op, Weight
from qcc.ir.regions.flow import Flow
from qcc.passes.contract.chains import cut_off, origin
from qcc.passes.contract.magnitudes import Magnitudes, at_positions, beyond

TWO = 2  # dimensions


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

    Args:
        flow: of the graph.
        weight: with what its layers are to read (`Weight.reading`).
        form: what it is to get.

    Raises:
        Refused: the layers are such that nothing multiplies whole numbers in them.
    """
    if not form.rounds_results(weight):
        if weight.kinds == {"conv"}:
            _operators(flow, weight)
        values = dict.fromkeys(layer.input for layer in weight.layers)
        readers = {one: tuple((layer.op, 0) for layer in weight.layers if layer.input == one) for one in values}
        seen = {one: (origin(flow, one),) for one in values}
        if kept := float_tokens(weight):
            seen = {one: (beyond(_with_tokens(flow, one), kept),) for one in values}
        if by_position(weight):
            seen = {one: (at_positions(_with_tokens(flow, one)),) for one in values}
        return tuple(Place(one, readers[one], seen[one]) for one in values)
    ops = _operators(flow, weight)
    found: dict[str, Place] = {}
    for value in dict.fromkeys(layer.input for layer in weight.layers):
        read = tuple((layer.op, 0) for layer in weight.layers if layer.input == value)
        found[value] = Place(value, read, (origin(flow, value),))
    for op in ops.values():
        value = op.outputs[0] if op.function == "conv_transpose" else cut_off(flow, op)  # that is interleaved first
        found[value] = Place(value, None, (value,))
    return tuple(found.values())


def float_tokens(weight: Weight) -> int:
    """How many first tokens of what a weight's layers read stay as they are."""
    return max((one.float_tokens for one in weight.reads if one is not None), default=0)


def by_position(weight: Weight) -> bool:
    """Each token of what a weight's layers read has a step by its place in the text."""
    return any(one is not None and one.by_position for one in weight.reads)


def _with_tokens(flow: Flow, value: str) -> str:
    """The value, which has an axis of tokens beside those of samples and channels."""
    shape = flow.graph.value(value).shape
    if shape is None or len(shape) <= TWO:
        raise Refused("it reads a matrix, in which no token is known to be the first of a text")
    samples = {one.shape[0] for one in flow.graph.inputs if one.shape and isinstance(one.shape[0], str)}
    if shape[-TWO] in samples:
        raise Refused("the axis before the channels of what it reads is that of samples, not of tokens")
    return value


def _operators(flow: Flow, weight: Weight) -> dict[str, Op]:
    """The ops of a weight's layers by their names, which read it in one way."""
    ops = {layer.op: _op(flow, layer) for layer in weight.layers}
    if len({op.inputs[1] for op in ops.values()}) > 1:
        raise Refused("its layers read it in several ways, and no product of integers takes that")
    return ops


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
