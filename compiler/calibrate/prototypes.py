"""Choosing samples that stand for all: those whose outputs lie as the outputs of all do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.samples import Samples
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array

FEATURES = 128  # numbers that are kept of a sample's outputs, drawn combinations of all
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
        transport: how far samples have to be moved, by what they make the model give out, to lie where these do, as a
            share of how far two are apart; zero for all of them.
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


def prototypes(samples: Samples, runner: Runner, count: int) -> Prototypes:
    """So many samples that stand for all, in their order.

    They are support points: the energy distance between what they and what all make the model give out is least, each
    counting the same, as statistics count them. They are found one by one, and then exchanged as long as that helps.

    Args:
        samples: all, of which the first 4,096 are looked at.
        runner: of the model.
        count: how many to choose.

    Raises:
        ModelError: the model fails on the data.

    Source: Support points, Mak and Joseph 2018 (arXiv:1609.01811), section 2; there by a convex procedure off the
    samples, here among them.
    """
    ones = list(samples.first(MOST).parts(1))
    if len(ones) <= count:
        return Prototypes(samples, len(ones), 0.0, 0.0)
    features = _features(runner, ones)
    distance = _distances(features)
    chosen = sorted(_support(distance, count))
    drawn = np.random.default_rng(SEED).choice(len(ones), count, replace=False)
    kept = [ones[at] for at in chosen]
    found = replace(samples, batches=samples.neighbours(kept) if samples.divisible else tuple(kept))
    return Prototypes(found, len(ones), _transport(distance, chosen), _transport(distance, drawn.tolist()))


def _features(runner: Runner, ones: Sequence[object]) -> Array:
    """What each sample makes the model give out, ``[samples, features]``: every output in units of its own."""
    columns: dict[str, list[Array]] = {}
    for one in ones:
        for name, array in flattened(runner(one)).items():  # type: ignore[arg-type]  # a feed
            if array.dtype.kind in "fiub" and array.size:
                columns.setdefault(name, []).append(_summed(array.astype(np.float32)))
    whole = [_scaled(np.stack(one)) for one in columns.values() if len({part.shape for part in one}) == 1]
    return np.concatenate(whole, 1) if whole else np.zeros((len(ones), 1), np.float32)


def _summed(array: Array) -> Array:
    """A few numbers of an output: what differs in length, as of texts, is averaged over all axes but the last."""
    flat = np.nan_to_num(array.reshape(-1, array.shape[-1]) if array.ndim > 2 else array.reshape(1, -1))
    row = flat.mean(0)
    if row.size <= FEATURES:
        return np.asarray(row)
    drawn = np.random.default_rng(SEED).standard_normal((row.size, FEATURES), np.float32)
    return np.asarray(row @ drawn / np.sqrt(FEATURES))


def _scaled(columns: Array) -> Array:
    spread = float(columns.std(0).mean())
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
