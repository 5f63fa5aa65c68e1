"""The bytes that a step of a model of tokens moves: for the token, and for each row of its caches.

A step multiplies each weight with one row, so that reading it is what takes time; so it is with what attentions do to
rows of caches. Bytes are counted from the sizes of values in runs behind a few rows: they grow by as much with each.
A byte of a weight comes from memory, one of a value of a short text from a cache: shares of bytes are none of time.

Source: Kinetics, Sadhukhan et al. 2025 (arXiv:2506.05333), for costs that see the memory that caches take; there the
parameters' own are left out, which are most of a step of one text.
"""

from dataclasses import dataclass
from math import prod

from qcc.compiler.sequence.one_step import step_feeds
from qcc.compiler.sequence.states import TokenModel
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import BITS_OF, Feeds, Kind, Op

LENGTHS = 16, 48  # of the caches of two runs
VIEWS = frozenset({"reshape", "unsqueeze", "squeeze", "flatten", "identity", "shape"})
"""Ops after which numbers lie where they lay."""


@dataclass(frozen=True)
class StepTraffic:
    """Bytes that a step reads and writes.

    Args:
        token: whatever is before: weights, and the values of one token.
        row: for each row that caches hold.
    """

    token: float
    row: float

    def bytes_behind(self, length: int) -> float:
        """Of a step behind so many tokens."""
        return self.token + self.row * length

    def share(self, length: int) -> float:
        """Of that, what the caches take."""
        return self.row * length / self.bytes_behind(length)


def step_traffic(graph: Graph, model: TokenModel, feeds: Feeds) -> StepTraffic:
    """Count.

    Args:
        graph: of the model.
        model: what it takes and gives.
        feeds: a sample of it.
    """
    ops = [op for op in graph.ops() if op.function not in VIEWS and not _known(graph, op)]
    few, many = LENGTHS
    first, second = (_moved(graph, ops, step_feeds(model, feeds, length)) for length in LENGTHS)
    row = (second - first) / (many - few)
    return StepTraffic(first - few * row, row)


def _known(graph: Graph, op: Op) -> bool:
    """It makes a constant of constants, when a session starts."""
    return all(not name or graph.constant(name) is not None for name in op.inputs)


def _moved(graph: Graph, ops: list[Op], feeds: Feeds) -> float:
    """Bytes that ops read and write in a run."""
    made = list(dict.fromkeys(name for op in ops for name in (*op.inputs, *op.outputs) if name))
    computed = [name for name in made if name not in feeds and graph.constant(name) is None]
    sizes = {name: array.nbytes for name, array in graph.runner(list(feeds), computed)(feeds).items()}
    sizes |= {name: array.nbytes for name, array in feeds.items()}
    return sum(_bytes_of(graph, op, sizes) for op in ops)


def _bytes_of(graph: Graph, op: Op, sizes: dict[str, int]) -> float:
    written = sum(sizes.get(name, 0) for name in op.outputs)
    looked_up = op.kind in (Kind.GATHER, Kind.EMBEDDING)
    read = sum(
        sizes[name] if name in sizes else 0.0 if looked_up else _stored(graph, name) for name in op.inputs if name
    )
    return written + read


def _stored(graph: Graph, name: str) -> float:
    """Of a constant."""
    value = graph.value(name)
    return prod(size for size in value.shape or () if isinstance(size, int)) * BITS_OF.get(value.dtype, 8) / 8
