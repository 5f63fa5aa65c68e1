"""Choosing samples that stand for all: what layers read of them lies as what they read of all does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Samples
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind

FEATURES, LAYERS = 128, 8  # numbers that are kept of what a layer reads of a sample, and of how many layers
MOST = 4096  # samples that are looked at: distances of all pairs are kept
SWEEPS = 3  # of exchanging one chosen sample after the other
MATCHED = 1024  # of the samples, for which the transport is solved exactly
SEED = 0


@dataclass(frozen=True)
class Prototypes:
    """Samples that were chosen.

    Args:
        samples: they.
        of: how many they were chosen of.
        transport: how far samples have to be moved, by what layers read of them, to lie where these do, as a share of
            how far two are apart; zero for all of them.
        drawn: the same for as many that are drawn.
    """

    samples: Samples
    of: int
    transport: float
    drawn: float

    @property
    def text(self) -> str:
        """One line for a report."""
        told = f"transport {self.transport:.2f} of the distance of two samples, {self.drawn:.2f} if drawn"
        return f"{self.samples.count} prototypes of {self.of}: {told}"


def prototypes(samples: Samples, graph: Graph, count: int) -> Prototypes:
    """So many samples that stand for all, in their order.

    They are support points: the energy distance between what layers read of them and of all is least, each counting
    the same, as statistics count them. They are found one by one, and then exchanged as long as that helps.

    Args:
        samples: all, of which the first 4,096 are looked at.
        graph: of the model.
        count: how many to choose.

    Raises:
        ModelError: the model fails on the data.

    Source: Support points, Mak and Joseph 2018 (arXiv:1609.01811), section 2; there by a convex procedure off the
    samples, here among them.
    """
    ones = list(samples.first(MOST).parts(1))
    if len(ones) <= count:
        return Prototypes(samples, len(ones), 0.0, 0.0)
    features = _features(graph, ones)
    distance = _distances(features)
    chosen = sorted(_support(distance, count))
    drawn = np.random.default_rng(SEED).choice(len(ones), count, replace=False)
    kept = [ones[at] for at in chosen]
    found = replace(samples, batches=samples.neighbours(kept) if samples.divisible else tuple(kept))
    return Prototypes(found, len(ones), _transport(distance, chosen), _transport(distance, drawn.tolist()))


def _features(graph: Graph, ones: Sequence[Batch]) -> Array:
    """What layers read of each sample, ``[samples, features]``: means and mean squares of channels, in equal units.

    Of a few layers, evenly, and of the outputs: early layers see what a sample looks like, late ones what it means.
    """
    read = {layer.input: layer.kind for weight in graph.weights() for layer in weight.layers if layer.input}
    names = [name for name in read if graph.value(name).dtype == "float32" and not graph.value(name).container]
    picked = [names[at] for at in sorted({*np.linspace(0, len(names) - 1, min(LAYERS, len(names))).astype(int)})]
    fed = [value.name for value in graph.inputs]
    wanted = list(dict.fromkeys([*(one for one in picked if one not in fed), *(one.name for one in graph.outputs)]))
    runner = graph.runner(fed, wanted)
    columns: dict[str, list[Array]] = {}
    for one in ones:
        made = {**{name: one[name] for name in picked if name in fed}, **flattened(runner(one))}
        for name, array in made.items():
            if array.dtype.kind in "fiub" and array.size and array.ndim > 1:
                axis = 1 if read.get(name) is Kind.CONV else -1
                columns.setdefault(name, []).append(_summed(array.astype(np.float32), axis))
    whole = [_scaled(np.stack(one)) for one in columns.values() if len({part.shape for part in one}) == 1]
    return np.concatenate(whole, 1) if whole else np.zeros((len(ones), 1), np.float32)


def _summed(array: Array, axis: int) -> Array:
    """Mean and mean square of each channel; a few drawn combinations where there are many."""
    flat = np.nan_to_num(np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]))
    row = np.concatenate([flat.mean(0), np.sqrt(np.mean(flat**2, 0))])
    if row.size <= FEATURES:
        return np.asarray(row)
    drawn = np.random.default_rng(SEED).standard_normal((row.size, FEATURES), np.float32)
    return np.asarray(row @ drawn / np.sqrt(FEATURES))


def _scaled(columns: Array) -> Array:
    spread = float(np.sqrt(columns.var(0).sum()))
    return np.asarray(columns / spread if spread > 0 else columns)


def _distances(features: Array) -> Array:
    square = np.sum(features**2, 1)
    found = square[:, None] + square[None, :] - 2 * features @ features.T
    return np.asarray(np.sqrt(np.maximum(found, 0)))


def _support(distance: Array, count: int) -> list[int]:
    """The samples of least energy distance to all: far from each other, near to the others."""
    near = distance.mean(0)
    chosen: list[int] = []
    apart = np.zeros(len(distance))  # of each to those chosen, summed
    for _ in range(count):
        cost = near - apart / (len(chosen) + 1)
        cost[chosen] = np.inf
        chosen.append(int(np.argmin(cost)))
        apart += distance[chosen[-1]]
    for _ in range(SWEEPS):
        moved = False
        for place, old in enumerate(chosen):
            apart -= distance[old]
            cost = near - apart / count
            cost[[one for one in chosen if one != old]] = np.inf
            best = int(np.argmin(cost))
            best = best if cost[best] < cost[old] - 1e-9 * abs(cost[old]) else old
            chosen[place] = best
            apart += distance[best]
            moved = moved or best != old
        if not moved:
            break
    return chosen


def _transport(distance: Array, chosen: Sequence[int]) -> float:
    """How far samples are moved on average to lie where the chosen do, each of which takes as many."""
    from scipy.optimize import linear_sum_assignment  # who chooses none needs none of it

    rows = np.linspace(0, len(distance) - 1, min(MATCHED, len(distance))).astype(int)
    places = np.resize(np.asarray(chosen), len(rows))
    costs = distance[np.ix_(rows, places)]
    at, to = linear_sum_assignment(costs)
    mean = float(distance.mean()) * len(distance) / max(len(distance) - 1, 1)
    return float(costs[at, to].mean()) / mean if mean else 0.0
