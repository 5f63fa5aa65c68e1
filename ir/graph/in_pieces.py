"""Running a graph whose constants are larger than memory: in pieces, each prepared, run on all feeds, and dropped.

A cut lies where few values are alive. What a piece needs of those before it is carried beside it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from qcc.ir.graph.graph import Graph, Runner, needed
from qcc.ir.graph.ops import Array, Feeds, Op

LARGE_BYTES = 1 << 31
"""Of constants: what has more is worked on in pieces."""
PIECE_BYTES = 1 << 29
"""Of the constants of a piece, about: one op is never cut."""


@dataclass(frozen=True)
class GraphPiece:
    """A stretch of a graph: the values that it reads and makes, and those that are needed after it."""

    reads: tuple[str, ...]
    makes: tuple[str, ...]
    alive: frozenset[str]


class InPieces:
    """A runner of a graph in pieces.

    Args:
        pieces: in their order.
        outputs: the values wanted.
        prepare: makes the runner of a piece.
    """

    def __init__(
        self, pieces: Sequence[GraphPiece], outputs: Sequence[str], prepare: Callable[[GraphPiece], Runner]
    ) -> None:
        self.pieces, self.outputs, self._prepare = pieces, tuple(outputs), prepare

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Run once."""
        return self.each([feeds])[0]

    def each(self, feeds: Sequence[Feeds]) -> list[dict[str, Array]]:
        """Run on several feeds, for which every constant is read once."""
        states = [dict(one) for one in feeds]
        for piece in self.pieces:
            runner = self._prepare(piece)
            states = [_carried(piece, state, runner({name: state[name] for name in piece.reads})) for state in states]
            del runner  # before the next one reads its constants
        return [{name: state[name] for name in self.outputs} for state in states]


def _carried(piece: GraphPiece, before: Feeds, made: Feeds) -> dict[str, Array]:
    return {name: array for name, array in {**before, **made}.items() if name in piece.alive}


def run_each(runner: Runner, feeds: Sequence[Feeds]) -> list[dict[str, Array]]:
    """The results for several feeds, whatever the runner."""
    return runner.each(feeds) if isinstance(runner, InPieces) else [runner(one) for one in feeds]


def pieces_of(
    graph: Graph, inputs: Sequence[str], outputs: Sequence[str], free: Collection[str] = ()
) -> list[GraphPiece]:
    """The pieces of what lies between some values; one where it is small.

    Args:
        graph: of it.
        inputs: the values fed.
        outputs: the values wanted.
        free: constants that are fed as well.
    """
    wanted = needed(graph, outputs, inputs)
    ops = [op for op in graph.ops() if not wanted.isdisjoint(op.outputs) and not set(inputs).issuperset(op.outputs)]
    sizes = [_constant_bytes(graph, op) for op in ops]
    if sum(sizes) <= LARGE_BYTES:
        return [GraphPiece(tuple(inputs), tuple(outputs), frozenset(outputs))]
    alive = [names | frozenset(free) for names in _alive(ops, inputs, outputs)]
    found, start = [], 0
    for end in [*_ends(graph, sizes, alive), len(ops) - 1]:
        inside = ops[start : end + 1]
        before = frozenset((*inputs, *free)) if not start else alive[start - 1]
        makes = {name for op in inside for name in op.outputs} & alive[end]
        reads = {name for op in inside for name in op.inputs} & before
        if makes:
            found.append(GraphPiece(tuple(sorted(reads)), tuple(sorted(makes)), alive[end]))
            start = end + 1
    return found


def _constant_bytes(graph: Graph, op: Op) -> int:
    arrays = [graph.constant(name) for name in op.inputs if name]
    return sum(array.nbytes for array in arrays if array is not None)


def _alive(ops: Sequence[Op], inputs: Sequence[str], outputs: Sequence[str]) -> list[frozenset[str]]:
    """The values that are needed after each op; what is wanted at last always is."""
    last = {name: at for at, op in enumerate(ops) for name in op.inputs} | dict.fromkeys(outputs, len(ops))
    current, found = set(inputs), []
    for at, op in enumerate(ops):
        current = {name for name in {*current, *op.outputs} if last.get(name, -1) > at}
        found.append(frozenset(current))
    return found


def _ends(graph: Graph, sizes: Sequence[int], alive: Sequence[frozenset[str]]) -> list[int]:
    """After which ops to cut: where the fewest values are alive in the second half of what a piece may hold."""
    ends: list[int] = []
    held, best = 0, -1
    contained = {name for name in frozenset().union(*alive) if graph.value(name).container}
    for at in range(len(sizes) - 1):
        if best >= 0 and held + sizes[at] > PIECE_BYTES:
            ends.append(best)
            held, best = sum(sizes[best + 1 : at]), -1
        held += sizes[at]
        fits = contained.isdisjoint(alive[at])
        if held > PIECE_BYTES // 2 and fits and (best < 0 or len(alive[at]) <= len(alive[best])):
            best = at
    return ends
