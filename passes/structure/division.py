"""How many channels each group keeps where all of them together are to keep a share of the multiplications.

What a channel costs at the layers that read it says which of a group's go first, not whose go: a layer near the end may
miss little and the outputs all of it. So what outputs lose is measured once a group, with some of its channels gone
and its readers fitted anew; in between it grows as the readers' own losses do.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array
from qcc.passes.contract.contract import Watch
from qcc.passes.structure.channel_fit import Removals

STEPS = 48  # in which a group's channels go
ROUNDS = 2  # of measuring: the second near what the first one chose
Counts = dict[str, int]
Losses = Callable[[Mapping[str, int]], Mapping[str, float]]
"""What outputs lose by each group alone, of which so many channels stay."""


def divided(
    removals: Mapping[str, Removals],
    work: Mapping[str, float],
    share: float,
    first: Counts,
    losses: Losses,
    multiple: int = 1,
) -> Counts:
    """How many channels of each group stay.

    Args:
        removals: of each group's channels.
        work: the multiplications of one of its channels.
        share: of all multiplications that stays.
        first: how many stay when losses are measured at first.
        losses: tells what outputs lose by some counts.
        multiple: of which counts are one where something goes.

    Source: the cheapest for what it frees goes next, as equal slopes do in LPViT, Xu et al. 2024 (arXiv:2407.02068),
        section 3.2, and budgets of pruned channels in ZipLM, Kurtic et al. 2023 (arXiv:2302.04089), section 3.2.
    """
    counts, slopes = first, dict[str, float]()
    for _ in range(ROUNDS):
        found = losses({name: count for name, count in counts.items() if removals[name].cost(count) > 0})
        slopes |= {name: loss / removals[name].cost(counts[name]) for name, loss in found.items()}
        counts = _divided(removals, work, share, slopes, multiple)
    return counts


def _divided(
    removals: Mapping[str, Removals],
    work: Mapping[str, float],
    share: float,
    slopes: Mapping[str, float],
    multiple: int,
) -> Counts:
    """By what outputs lose for each loss of the readers."""
    counts = {name: one.size for name, one in removals.items()}
    left = sum(work[name] * one.size for name, one in removals.items()) * (1 - share)
    while left > 0:
        lower = {name: _next(counts[name], one, multiple) for name, one in removals.items()}
        frees = {name: work[name] * (counts[name] - lower[name]) for name in removals if lower[name] < counts[name]}
        prices = {
            name: slopes.get(name, 0.0) * (removals[name].cost(lower[name]) - removals[name].cost(counts[name])) / freed
            for name, freed in frees.items()
        }
        if not prices:
            break
        name = min(prices, key=lambda name: prices[name])
        left -= frees[name]
        counts[name] = lower[name]
    return counts


def _next(count: int, one: Removals, multiple: int) -> int:
    """The next lower count; the same where there is none."""
    lower = count - max(one.size // STEPS, 1)
    lower -= lower % multiple
    return lower if lower >= max(one.size - len(one.order), 1) else count


def lost(whole: Graph, other: Graph, watch: Watch) -> float:
    """What outputs lose on data held out, or on all where none is: the mean of noise over signal."""
    names = [value.name for value in whole.outputs]
    for held in (True, False):
        pairs = zip(watch(whole, names, held), watch(other, names, held), strict=True)
        shares = [_share(before[name], after[name]) for before, after in pairs for name in names]
        if shares:
            return float(np.mean(shares))
    return 0.0


def _share(before: Array, after: Array) -> float:
    signal = float(np.square(before.astype(np.float64)).sum())
    noise = float(np.square(after.astype(np.float64) - before).sum())
    return noise / signal if signal else 0.0


def work_of(
    graph: Graph, groups: Mapping[str, Sequence[str]], sizes: Mapping[str, int], watch: Watch
) -> dict[str, float]:
    """The multiplications of a channel of each group, for one sample, by the names of the weights that go with it."""
    weights = {weight.name: weight for weight in graph.weights()}
    names = {name for some in groups.values() for name in some if weights[name].layers}
    outputs = {name: weights[name].layers[0].output for name in names}
    sample = next(watch(graph, sorted(set(outputs.values())), False))
    places = {name: sample[output].size / max(weights[name].shape[0], 1) for name, output in outputs.items()}
    return {
        group: sum(weights[name].params * places.get(name, 1.0) for name in some) / sizes[group]
        for group, some in groups.items()
    }
