"""Neighbouring branches that could share weights: what that saves, and what the outputs lose.

Two branches are neighbours if none between them is built like them. If the giver takes weights itself, what the taker
gets are those of the first: whole runs of blocks come to have the same weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.probe import TOGETHER, Probe, as_arrays
from qcc.compiler.measure.segments import Chain, cut
from qcc.compiler.metrics.metric import Additive
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array
from qcc.ir.open_file import gradients
from qcc.ir.regions.residual import ResidualBranch


@dataclass(frozen=True)
class Pair:
    """A branch that would take the weights of the one before it."""

    giver: ResidualBranch
    taker: ResidualBranch


Tick = Callable[[int, int, Pair], None]


def roots(pairs: Sequence[Pair]) -> list[tuple[ResidualBranch, ResidualBranch]]:
    """Each taker with the branch whose weights it has in the end."""
    givers = {one.taker.name: one.giver for one in pairs}
    found = []
    for one in pairs:
        giver = one.giver
        while giver.name in givers:
            giver = givers[giver.name]
        found.append((one.taker, giver))
    return found


class Pairs:
    """The pairs of a graph.

    Args:
        graph: as it is.
        groups: branches that are built alike, in the order in which they run.
        samples: to measure on.
        metric: what is lost.
    """

    def __init__(
        self, graph: Graph, groups: Sequence[Sequence[ResidualBranch]], samples: Samples, metric: Additive
    ) -> None:
        self.all = [Pair(*two) for group in groups for two in pairwise(group)]
        self._graph, self._samples = graph, samples
        self._meant: list[dict[str, Array]] = []  # outputs by batch, once gradients are asked for
        self._weights = {weight.name: weight for weight in graph.weights()}
        self._probe = Probe(graph, Chain(graph, cut(graph)), samples, metric)

    def saved(self, pair: Pair) -> int:
        """The weights that are stored no more."""
        return sum(self._weights[name].params for name in pair.taker.weights)

    def stored(self, pairs: Sequence[Pair]) -> dict[str, str | None]:
        """The weights that are stored no more, each with the one that is in its place."""
        return {
            own: name for taker, giver in roots(pairs) for own, name in zip(taker.weights, giver.weights, strict=True)
        }

    def loss(self, pairs: Sequence[Pair]) -> float:
        """What outputs lose when some pairs share."""
        return self._probe.loss(self._arrays(pairs))

    def agreements(self, tick: Tick) -> dict[Pair, float]:
        """How far gradients agree at the two places where a pair would use its weights: their cosine, by pair.

        They are those of the squares of what the outputs are off by once the pair shares, by the weights at either
        place: where both would have them moved alike, one set of weights may serve both.

        Raises:
            ModelError: there are no gradients, ``Q740``.
        """
        found = {}
        for at, pair in enumerate(self.all):
            tick(at, len(self.all), pair)
            try:
                found[pair] = self.agreement(pair)
            except ModelError as missing:
                help = "rank pairs by what outputs lose: leave `by = gradient` out"
                raise ModelError("Q740", f"pairs are not ranked by gradients: {missing.message}", help) from missing
        return found

    def agreement(self, pair: Pair) -> float:
        """That of one pair.

        Raises:
            ModelError: there are no gradients.
        """
        shared = self._graph.copy()
        for name, array in self._arrays([pair]).items():
            shared.replace_constant(name, array)
        outputs = [value.name for value in self._graph.outputs if "float" in value.dtype]
        if not self._meant:
            whole = self._graph.runner([value.name for value in self._graph.inputs], outputs)
            self._meant += [as_arrays(whole(batch)) for batch in self._samples.parts(TOGETHER)]
        sides = [[self._weights[name].constant for name in one.weights] for one in (pair.giver, pair.taker)]
        way = gradients(shared, outputs, [name for side in sides for name in side])
        total = [np.zeros(0), np.zeros(0)]
        for batch, meant in zip(self._samples.parts(TOGETHER), self._meant, strict=True):
            known = way.known(batch)
            pulled = way.pulled(known, {name: known[name] - meant[name] for name in way.outputs})
            flat = [np.concatenate([pulled[name].reshape(-1) for name in side if name in pulled]) for side in sides]
            total = [one.astype(np.float64) + (old if old.size else 0) for one, old in zip(flat, total, strict=True)]
        size = np.linalg.norm(total[0]) * np.linalg.norm(total[1])
        return float(np.vdot(*total) / size) if size else 0.0

    def _arrays(self, pairs: Sequence[Pair]) -> dict[str, Array]:
        found = {}
        for own, name in self.stored(pairs).items():
            array = self._graph.constant(self._weights[str(name)].constant)
            assert array is not None
            found[self._weights[own].constant] = array
        return found
