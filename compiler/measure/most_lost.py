"""After a failed verification: the weights that lose most, measured at the outputs.

The graph's pieces first, each with all of its weights as they were stored, then one weight at a time in the pieces that
lose most. What layers round of their activations is not in it.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.probe import Probe
from qcc.compiler.measure.segments import Chain, cut
from qcc.compiler.verify.outputs import Loser
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight

SAMPLES = 4
RUNS = 32  # of one weight alone
PATIENCE_S = 20.0  # then no other weight is begun
SMALL = 0.02  # of the noise: pieces that make less are not looked into

ProbeTick = Callable[[str], None]


def most_lost(graph: Graph, encoded: Mapping[str, Encoded], samples: Samples, tick: ProbeTick) -> tuple[Loser, ...]:
    """The weights that lose most, the worst first; none where the model cannot be run in pieces.

    Args:
        graph: the model before it was encoded.
        encoded: what became of its weights, by name.
        samples: to run on, of which a few are taken.
        tick: told of each run.
    """
    weights = [weight for weight in graph.weights() if weight.name in encoded]
    if not weights:
        return ()
    try:
        return _Search(graph, encoded, samples, tick).found(weights)
    except ModelError:
        return ()


class _Search:
    """One search, within its time."""

    def __init__(self, graph: Graph, encoded: Mapping[str, Encoded], samples: Samples, tick: ProbeTick) -> None:
        self._graph, self._encoded, self._tick = graph, encoded, tick
        start = time.monotonic()
        self._deadline = start + PATIENCE_S
        self._chain = Chain(graph, cut(graph))
        tick("")
        self._probe = Probe(graph, self._chain, samples.first(1))
        runs = len(self._chain.pieces) / 2 + 1  # in whole models, since only what comes after a piece is run
        if (time.monotonic() - start) * runs * SAMPLES < PATIENCE_S / 2:
            self._probe = Probe(graph, self._chain, samples.first(SAMPLES))

    def found(self, weights: Sequence[Weight]) -> tuple[Loser, ...]:
        """Pieces, then weights."""
        pieces: dict[int, list[Weight]] = {}
        for weight in weights:
            pieces.setdefault(self._chain.first_reader(weight.constant), []).append(weight)
        together = {at: self._loss(members) for at, members in pieces.items()}
        total = sum(together.values())
        alone: dict[str, float] = {}
        for at in sorted(together, key=lambda at: -together[at]):
            left = RUNS - len(alone)
            if left <= 0 or together[at] <= SMALL * total:
                break
            alone |= self._look_into(pieces[at][:], together[at], left)
            total += max(sum(alone.get(one.name, 0.0) for one in pieces[at]) - together[at], 0.0)
        ordered = sorted(alone.items(), key=lambda item: -item[1])
        return tuple(Loser(name, loss, loss / total) for name, loss in ordered if loss > 0)

    def _look_into(self, members: list[Weight], together: float, left: int) -> dict[str, float]:
        """The losses of a piece's weights alone, those with the largest errors first."""
        if len(members) == 1:
            return {members[0].name: together}
        if len(members) > left:
            members.sort(key=self._noise, reverse=True)
        found: dict[str, float] = {}
        for weight in members[:left]:
            if time.monotonic() > self._deadline and found:
                break
            found[weight.name] = self._loss([weight])
        return found

    def _loss(self, members: Sequence[Weight]) -> float:
        """What the outputs lose by these weights alone."""
        self._tick(members[0].name)
        return self._probe.loss({one.constant: self._decoded(one) for one in members})

    def _decoded(self, weight: Weight) -> np.ndarray:
        return self._graph.as_constant(weight, self._encoded[weight.name].decode())

    def _noise(self, weight: Weight) -> float:
        """The noise power in a weight."""
        matrix = self._graph.matrix(weight)
        return float(((self._encoded[weight.name].decode() - matrix) ** 2).sum())
