"""What runs on whole numbers along with layers that do: sums, pools and what only moves numbers.

A runtime computes a chain of ops without leaving integers where each reads and makes rounded values. Which ops can join
follows from what is rounded already, and only those do from which such a value is made in the end: rounding costs
accuracy, and is done for nothing else.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from qcc.ir.graph.ops import Array, Kind, Layer, Op
from qcc.ir.regions.flow import Flow
from qcc.ir.vocabulary.find import OPS

OPERANDS = 2  # of the sums and products that runtimes have
UNEVEN = 2  # times the smallest factor: larger ones would leave a bit less to the small channels


@dataclass(frozen=True)
class Joined:
    """An op that reads and makes rounded values.

    Args:
        op: its name.
        reads: its operands that are rounded, by position; constants among them.
        results: what it makes, behind a function that cuts off below zero.
        source: the value whose numbers the results hold; empty where they are others.
    """

    op: str
    reads: tuple[tuple[str, int], ...]
    results: tuple[str, ...]
    source: str


def joined(flow: Flow, rounded: Collection[str]) -> list[Joined]:
    """The ops that join a chain, in order.

    Args:
        flow: of the graph.
        rounded: the values that are read rounded.
    """
    have, found = set(rounded), list[Joined]()
    for op in flow.ops:
        one = _joined(flow, op, have)
        if one is not None:
            have.update(one.results)
            found.append(one)
    wanted, kept = set(rounded), list[Joined]()
    for one in reversed(found):
        if not wanted.isdisjoint(one.results):
            wanted.update(value for value, _ in one.reads)
            kept.append(one)
    return kept[::-1]


def _joined(flow: Flow, op: Op, have: set[str]) -> Joined | None:
    if moves(op):
        results = tuple(name for name in op.outputs if name)
        return Joined(op.name, ((op.inputs[0], 0),), results, op.inputs[0]) if op.inputs[0] in have else None
    known = _integer(op) == "computes" and (op.kind is not Kind.BINARY or len(op.inputs) == OPERANDS)
    if not known or have.isdisjoint(op.inputs):
        return None
    reads = range(len(op.inputs) if op.kind in (Kind.BINARY, Kind.CONCAT) else 1)
    constants = [flow.constant(op.inputs[at]) for at in reads if op.inputs[at] not in have]
    if any(array is None or (op.function == "mul" and not _even(array)) for array in constants):
        return None
    return Joined(op.name, tuple((op.inputs[at], at) for at in reads), (cut_off(flow, op),), "")


def _even(factors: Array) -> bool:
    """Channels that are multiplied by such are as large beside each other as they were: one step does for both."""
    sizes = np.abs(factors[factors != 0])
    return not sizes.size or bool(sizes.max() <= UNEVEN * sizes.min())


def moves(op: Op) -> bool:
    """What an op makes are numbers of its first operand, or zeros beside them."""
    beside = op.attributes.get("mode", "constant"), op.attributes.get("value", 0)  # of what is padded
    return _integer(op) == "moves" and beside == ("constant", 0)


def _integer(op: Op) -> str:
    """What the vocabulary says of it for whole numbers."""
    known = OPS.get((op.kind, op.function))
    return known.integer if known is not None else ""


def cut_off(flow: Flow, op: Op) -> str:
    """What an op makes, behind a function that cuts off below zero: that is done by rounding."""
    value = op.outputs[0]
    behind = flow.only_reader(value)
    if behind is None or not behind.outputs or behind.inputs[:1] != (value,):
        return value
    cuts = behind.function == "relu" or (behind.function == "clip" and behind.attributes.get("min") == 0)
    return behind.outputs[0] if behind.kind is Kind.ELEMENTWISE and cuts else value


def origin(flow: Flow, value: str) -> str:
    """Where numbers come from that were only moved, or of which the largest were taken: both have one range."""
    while (op := flow.maker(value)) is not None and moves(op):
        if flow.constant(op.inputs[0]) is not None:
            return value
        value = op.inputs[0]
    return value


def follows_convolution(flow: Flow, layer: Layer) -> bool:
    """What a linear layer reads is a convolution's result, or made of such by ops that may join a chain."""
    if layer.kind is Kind.CONV:
        return True
    value = layer.input
    while (op := flow.maker(value)) is not None:
        if op.kind is Kind.CONV:
            return True
        if not moves(op) and _integer(op) != "computes" and op.function not in ("relu", "clip"):
            return False
        value = op.inputs[0]
    return False
