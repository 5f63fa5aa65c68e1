"""What a model loses without some of its residual branches: one after the other goes, each beside those gone already.

Every branch gets a factor of one behind it; with nought in its place the branch is out, and only what comes after it
runs again. Of what has been measured before, those that cost least for their weights are measured anew before each
removal: two branches that do much the same are cheap one by one and dear together.

Source: FoldGPT, 2024 (arXiv:2407.00928), section 3.2, whose gates are learned where here they are tried.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from qcc.compiler.calibrate.find_masks import find_masks
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.probe import TOGETHER, Probe, as_arrays
from qcc.compiler.measure.segments import Chain, cut
from qcc.compiler.measure.tally import Tally, output_noise
from qcc.compiler.metrics.metric import Additive
from qcc.compiler.observe.observer import Tick
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Feeds
from qcc.ir.regions.residual import ResidualBranch

MEASURED_ANEW = 8  # before each removal but the first
T = TypeVar("T")


@dataclass(frozen=True)
class Removal:
    """A branch that goes next, and what the outputs lose without it and all that went before."""

    branch: ResidualBranch
    loss: float


def removals(
    graph: Graph, branches: Sequence[ResidualBranch], most: int, samples: Samples, metric: Additive, tick: Tick
) -> Iterator[Removal]:
    """The branches that may go, in the order in which they do.

    Args:
        graph: with all of them.
        branches: none of which lies in another.
        most: so many at most.
        samples: to measure on.
        metric: what is lost.
        tick: told of each run.
    """
    gates = Gates(graph, branches, samples, metric)
    params = {weight.name: weight.params for weight in graph.weights()}
    sizes = [sum(params[name] for name in one.weights) for one in branches]
    for gone, loss in in_turn(branches, sizes, most, gates.loss, lambda at, of, one: tick(at, of, one.name)):
        yield Removal(gone, loss)


def in_turn(
    items: Sequence[T],
    sizes: Sequence[int],
    most: int,
    lost: Callable[[Sequence[T]], float],
    tick: Callable[[int, int, T], None],
) -> Iterator[tuple[T, float]]:
    """What is done to a model, one thing after the other, with what it loses by then: the cheapest for its size first.

    Args:
        items: that may be done.
        sizes: what each saves.
        most: so many at most.
        lost: what some of them lose together.
        tick: told of each run.
    """
    dear = [0.0] * len(items)
    done: list[int] = []
    before = 0.0
    for _ in range(min(most, len(items))):
        left = sorted((at for at in range(len(items)) if at not in done), key=lambda at: dear[at])
        tried = left[:MEASURED_ANEW] if done else left
        losses = {}
        for count, at in enumerate(tried):
            tick(count, len(tried), items[at])
            losses[at] = lost([items[one] for one in (*done, at)])
            dear[at] = (losses[at] - before) / max(sizes[at], 1)
        best = min(tried, key=lambda at: dear[at])
        before = losses[best]
        done.append(best)
        yield items[best], before


class Gates:
    """A graph with a factor behind each branch."""

    def __init__(self, graph: Graph, branches: Sequence[ResidualBranch], samples: Samples, metric: Additive) -> None:
        gated = graph.copy()
        self._gates: dict[str, tuple[str, str]] = {}
        self._zero: dict[str, Array] = {}
        for one in branches:
            dtype = np.dtype(gated.value(one.end).dtype)
            made = gated.insert("mul", one.end, np.ones((1,), dtype), [(one.op, one.position)])
            self._gates[one.name], self._zero[one.name] = (made, ""), np.zeros((1,), dtype)
        producers = {op.outputs[0]: op for op in gated.ops() if op.outputs}
        for name, (made, _) in self._gates.items():
            gate = next(one for one in producers[made].inputs if gated.constant(one) is not None)
            self._gates[name] = made, gate
        pieces = [
            replace(piece, constants=tuple(gate for made, gate in self._gates.values() if made in piece.inside))
            for piece in cut(gated)
        ]
        self._probe = Probe(gated, Chain(gated, pieces), samples, metric)

    def loss(self, gone: Sequence[ResidualBranch]) -> float:
        """What is lost without some branches."""
        return self._probe.loss({self._gates[one.name][1]: self._zero[one.name] for one in gone})


def lost_whole(graph: Graph, other: Graph, samples: Samples, metric: Additive) -> float:
    """What the outputs of another graph are off by."""
    names = [value.name for value in graph.inputs], [value.name for value in graph.outputs]
    first, second = graph.runner(*names), other.runner(*names)

    def outputs(feeds: Feeds) -> dict[str, Array]:
        return as_arrays(first(feeds))

    hiding = find_masks(graph.inputs, outputs, samples)
    found = Tally()
    for batch in map(hiding.cropped, samples.parts(TOGETHER)):
        wanted = first(batch)
        sight = hiding.sight(outputs, batch, as_arrays(wanted)) if hiding.masks else {}
        found += output_noise(second(batch), wanted, samples.size(batch), sight, metric)
    return found.loss
