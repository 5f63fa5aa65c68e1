"""Cutting a graph into a chain of pieces, so that changing one weight re-runs only what comes after it.

A cut lies where few values are alive. Every piece is one prepared runner in which the piece's weights can be
overridden; a value that a piece only passes on is carried beside it.
"""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Op

PIECES = 16
Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Segment:
    """A stretch of ops: the values it reads, those it makes for later pieces, and the constants of weights in it.

    ``inside`` are all the values that it computes.
    """

    reads: tuple[str, ...]
    makes: tuple[str, ...]
    inside: frozenset[str]
    alive: frozenset[str]
    constants: tuple[str, ...]

    def carried(self, before: Values, made: Values, outputs: Collection[str] = ()) -> Values:
        """What there is behind it, of what there was before and what it made."""
        kept = {name: array for name, array in before.items() if name in self.alive or name in outputs}
        return {**kept, **{name: made[name] for name in self.makes}}


def cut(graph: Graph, most: int = PIECES) -> list[Segment]:
    """Cut a graph at about equal numbers of weights."""
    ops = graph.ops()
    alive = _alive(graph, ops)
    readers = _readers(graph, ops)
    places = sorted(readers)
    count = max(min(most, len(places)), 1)
    ends, start = [], 0
    for number in range(1, count):
        low, high = places[number * len(places) // count - 1], places[number * len(places) // count]
        between = [at for at in range(low, high) if low >= start and _tensors(graph, alive[at])]
        if between:
            end = min(between, key=lambda at: len(alive[at]))
            ends.append(end)
            start = end + 1
    ends.append(len(ops) - 1)
    return _pieces(graph, ops, alive, readers, ends)


def cut_behind(graph: Graph, values: Collection[str]) -> list[Segment]:
    """Cut a graph behind the ops that make some values, and nowhere else; no constant can be overridden."""
    ops = graph.ops()
    alive = _alive(graph, ops)
    ends = [at for at, op in enumerate(ops) if not {*values}.isdisjoint(op.outputs) and _tensors(graph, alive[at])]
    return _pieces(graph, ops, alive, {}, [*ends, *([] if ends[-1:] == [len(ops) - 1] else [len(ops) - 1])])


def first_reader(pieces: Sequence[Segment], constant: str) -> int:
    """The first piece that reads a constant."""
    return next(at for at, piece in enumerate(pieces) if constant in piece.constants)


class Chain:
    """The pieces of a graph, ready to run on one set of feeds from any piece on."""

    def __init__(self, graph: Graph, pieces: Sequence[Segment]) -> None:
        self.pieces = pieces
        self._outputs = tuple(value.name for value in graph.outputs)
        self._runners: list[Runner] = [graph.runner(piece.reads, piece.makes, piece.constants) for piece in pieces]

    def where(self, constant: str, graph: Graph) -> "Chain":
        """The chain of a graph that differs in the pieces alone that read a constant."""
        other = copy(self)
        other._runners = [
            graph.runner(piece.reads, piece.makes, piece.constants) if constant in piece.constants else runner
            for piece, runner in zip(self.pieces, self._runners, strict=True)
        ]
        return other

    def first_reader(self, constant: str) -> int:
        """The first piece that reads a constant."""
        return first_reader(self.pieces, constant)

    def states(self, feeds: Mapping[str, np.ndarray]) -> list[Values]:
        """The values alive before each piece, and at the end the outputs."""
        states = [dict(feeds)]
        for at in range(len(self.pieces)):
            states.append(self._step(at, states[-1], {}))
        return states

    def outputs(self, start: int, state: Values, overrides: Mapping[str, np.ndarray]) -> Values:
        """The outputs when the constants in ``overrides`` are replaced, from piece ``start`` in the given state."""
        for at in range(start, len(self.pieces)):
            state = self._step(at, state, overrides)
        return state

    def _step(self, at: int, state: Values, overrides: Mapping[str, np.ndarray]) -> Values:
        piece = self.pieces[at]
        feeds = {name: state[name] for name in piece.reads}
        feeds.update({name: array for name, array in overrides.items() if name in piece.constants})
        return piece.carried(state, self._runners[at](feeds), self._outputs)


def _alive(graph: Graph, ops: Sequence[Op]) -> list[frozenset[str]]:
    """The computed values that are needed after each op."""
    last: dict[str, int] = {value.name: len(ops) for value in graph.outputs}
    for at, op in enumerate(ops):
        for name in op.inputs:
            last[name] = max(last.get(name, at), at)
    alive: list[frozenset[str]] = []
    current = {value.name for value in graph.inputs if value.name in last}
    for at, op in enumerate(ops):
        current |= {name for name in op.outputs if name in last}
        current -= {name for name in {*op.inputs, *op.outputs} if last.get(name, -1) <= at}
        alive.append(frozenset(current))
    return alive


def _tensors(graph: Graph, names: frozenset[str]) -> bool:
    """No value is a sequence or the like, which is not carried from piece to piece."""
    return not any(graph.value(name).container for name in names)


def _readers(graph: Graph, ops: Sequence[Op]) -> dict[int, list[str]]:
    """The constants of weights by the position of the op that reads them."""
    places = {op.name: at for at, op in enumerate(ops)}
    found: dict[int, list[str]] = {}
    for weight in graph.weights():
        for layer in weight.layers:
            found.setdefault(places[layer.op], []).append(weight.constant)
    return found


def _pieces(
    graph: Graph, ops: Sequence[Op], alive: list[frozenset[str]], readers: dict[int, list[str]], ends: list[int]
) -> list[Segment]:
    outputs = {value.name for value in graph.outputs}
    before = frozenset(value.name for value in graph.inputs)
    pieces, start = [], 0
    for end in ends:
        inside = ops[start : end + 1]
        made = {name for op in inside for name in op.outputs}
        read = {name for op in inside for name in op.inputs} & (before | outputs) - made
        makes = sorted(made & (alive[end] | outputs))
        constants = sorted({name for at in range(start, end + 1) for name in readers.get(at, [])})
        pieces.append(
            Segment(tuple(sorted(read & before)), tuple(makes), frozenset(made), alive[end], tuple(constants))
        )
        before, start = alive[end] | (before & outputs) | (made & outputs), end + 1
    return pieces
