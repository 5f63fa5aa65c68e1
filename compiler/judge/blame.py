"""Which weights a lost score is owed to, by bisection: half of them at a time are as the original has them."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from math import ceil, log2

import numpy as np

from qcc.compiler.judge.judge import Judge
from qcc.compiler.verify.outputs import Loser
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Feeds, Weight

NAMED = 3  # weights that are looked for
RUNS = 24  # of the model on all samples that judge


def blamed(
    judge: Judge, graph: Graph, encoded: Mapping[str, Encoded], tick: Callable[[str], None]
) -> tuple[Loser, ...]:
    """The weights that lose most of a score, the worst first; none where no part of them loses any.

    Each is told with what it loses alone, and its share of what all lose together. What layers round of their
    activations is not in it.

    Args:
        judge: scores models.
        graph: the model before it was encoded.
        encoded: what became of its weights, by name.
        tick: told of each run.
    """
    weights = [weight for weight in graph.weights() if weight.name in encoded]
    try:
        return _Bisection(judge, graph, encoded, tick).found(weights) if weights else ()
    except ModelError:  # the graph does not run in part
        return ()


class _Bisection:
    """One search."""

    def __init__(self, judge: Judge, graph: Graph, encoded: Mapping[str, Encoded], tick: Callable[[str], None]) -> None:
        self._judge, self._graph, self._encoded, self._tick = judge, graph, encoded, tick
        names = tuple(value.name for value in graph.inputs)
        self._constants = {weight.constant: graph.constant(weight.constant) for weight in graph.weights()}
        self._runner = graph.runner(names, tuple(value.name for value in graph.outputs), tuple(self._constants))

    def found(self, weights: Sequence[Weight]) -> tuple[Loser, ...]:
        """Halves of what loses most, until some are alone."""
        total, order = self._loss(weights), count()
        heap = [(-total, next(order), list(weights))]
        runs, most = 1, min(RUNS, 2 * NAMED * max(ceil(log2(len(weights))), 1) + 1)
        alone: dict[str, float] = {}
        while heap and len(alone) < NAMED:
            loss, _, members = heapq.heappop(heap)
            if -loss <= 0:
                break
            if len(members) == 1:
                alone[members[0].name] = -loss
                continue
            if runs + 2 > most:
                break
            half = len(members) // 2
            for part in (members[:half], members[half:]):
                heapq.heappush(heap, (-self._loss(part), next(order), part))
                runs += 1
        whole = max(total, sum(alone.values()))
        return tuple(Loser(name, loss, loss / whole) for name, loss in alone.items())

    def _loss(self, members: Sequence[Weight]) -> float:
        """What is lost of the worst score, in bounds, where these alone are as they were stored."""
        self._tick(members[0].name)
        fixed = {name: array for name, array in self._constants.items() if array is not None}
        for one in members:
            fixed[one.constant] = self._graph.as_constant(one, self._encoded[one.name].decode())

        def run(feeds: Feeds) -> dict[str, np.ndarray]:
            return self._runner({**feeds, **fixed})

        return max(one.drop.estimate / one.limit for one in self._judge.checks(run))
