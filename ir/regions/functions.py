"""Where a graph computes functions of single values, softmaxes and norms, told by what they compute."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op
from qcc.ir.regions.flow import Flow, Piece
from qcc.ir.regions.recognise import Recogniser
from qcc.ir.vocabulary.find import NORMS, OPS

SOFTMAX, NORM = "softmax", "norm"
OF_STEPS = {step.name: op.function for op in OPS.values() for step in op.steps if step.activates}
"""The functions of single values that kernels know, by how they compute them."""
SINGLE = tuple(op.function for op in OPS.values() if op.kind == Kind.ELEMENTWISE and op.plain and op.law == "other")
"""Functions of single values that neither cut off nor multiply."""
FUNCTIONS = (*SINGLE, SOFTMAX, NORM)
"""All that is found here."""


@dataclass(frozen=True)
class FunctionSite:
    """A function, where a graph computes it.

    Args:
        name: of the last of its ops.
        what: it is, one of `FUNCTIONS`.
        source: the value that it is of.
        result: what it makes.
        axis: that a softmax runs along.
        centred: of a norm: the mean comes off first.
        epsilon: that is added to the mean of squares.
        gain: the constant that a norm's result is multiplied with, and ``shift`` what is added; empty for none.
        shift: see there.
    """

    name: str
    what: str
    source: str
    result: str
    axis: int = -1
    centred: bool = False
    epsilon: float = 0.0
    gain: str = ""
    shift: str = ""


def functions(graph: Graph, wanted: Collection[str]) -> list[FunctionSite]:
    """The functions of some kinds, in the order in which they run.

    One that is spelled in several ops is one function, and what it is spelled of is none of its own.
    """
    flow = Flow(graph)
    recogniser, claimed, found = Recogniser(flow), set[str](), list[FunctionSite]()
    composed = {NORM, *OF_STEPS.values()}.intersection(wanted)
    for op in flow.ops if composed else ():
        for value in (*([] if op is not flow.ops[0] else [one.name for one in graph.inputs]), *op.outputs):
            site, ops = _composed(flow, recogniser, value, claimed)
            if site is not None and site.what in wanted:
                claimed.update(ops)
                found.append(site)
    found += [one for op in flow.ops if op.name not in claimed if (one := _alone(flow, op)) and one.what in wanted]
    return sorted(found, key=lambda one: flow.position[one.name])


def _composed(
    flow: Flow, recogniser: Recogniser, value: str, claimed: Collection[str]
) -> tuple[FunctionSite | None, tuple[str, ...]]:
    """The longest piece behind a value that is a function, and its ops."""
    for piece in _worth(flow, value, claimed):
        match = recogniser.match(piece)
        if match is None:
            continue
        names = tuple(op.name for op in piece.ops)
        if match.step in NORMS:
            gain, shift, *_ = (*match.operands, "", "")
            how = -1, bool(NORMS[match.step].centred), match.epsilon or 0.0
            return FunctionSite(names[-1], NORM, piece.source, piece.result, *how, gain, shift), names
        return FunctionSite(names[-1], OF_STEPS[match.step], piece.source, piece.result), names
    return None, ()


def _worth(flow: Flow, value: str, claimed: Collection[str]) -> Iterator[Piece]:
    """The pieces behind a value that may be more than sums and products of it."""
    for piece in flow.pieces(value, claimed):
        kinds = {op.kind for op in piece.ops}
        if kinds & {Kind.NORM, Kind.REDUCE, Kind.ELEMENTWISE}:
            yield piece


def _alone(flow: Flow, op: Op) -> FunctionSite | None:
    """A function that is one op."""
    if op.kind is Kind.SOFTMAX and op.function == SOFTMAX and isinstance(axis := op.attributes.get("axis"), int):
        return FunctionSite(op.name, SOFTMAX, op.inputs[0], op.outputs[0], axis)
    if op.kind is Kind.ELEMENTWISE and op.function in SINGLE and flow.constant(op.inputs[0]) is None:
        return FunctionSite(op.name, op.function, op.inputs[0], op.outputs[0])
    return None
