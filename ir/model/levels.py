"""What a model's file says of weights that are sums: how many levels each has, and which matter most.

It is written where losses were measured, so that a file can be made smaller without data.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

NOTE = "qcc.levels"


@dataclass(frozen=True)
class Levels:
    """The levels of a model's weights.

    Args:
        counts: of each weight, by name, two or more.
        order: of the levels beyond the first of each weight, by the weights' places in ``counts``: what comes first is
            worth most.

    Raises:
        ValueError: the order is not of these weights.
    """

    counts: Mapping[str, int]
    order: tuple[int, ...]

    def __post_init__(self) -> None:
        wanted = [at for at, count in enumerate(self.counts.values()) for _ in range(count - 1)]
        if sorted(self.order) != wanted or any(count < 1 for count in self.counts.values()):
            raise ValueError("the order is not that of the levels")

    def steps(self) -> Iterator[tuple[str, int]]:
        """The order as weights, each with how many levels it has from there on."""
        names, counts = list(self.counts), [1] * len(self.counts)
        for at in self.order:
            counts[at] += 1
            yield names[at], counts[at]

    def left(self, counts: Mapping[str, int]) -> "Levels":
        """The levels where only so many are left of each weight."""
        places = {name: at for at, name in enumerate(self.counts)}
        return Levels(dict(counts), tuple(places[name] for name, count in self.steps() if count <= counts[name]))

    @property
    def text(self) -> str:
        """For a file's metadata."""
        content = {"weights": dict(self.counts), "order": self.order}
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def from_note(text: str) -> Levels:
    """Levels as a file tells them.

    Raises:
        ValueError: they are no levels.
    """
    try:
        content = json.loads(text)
        counts, order = content["weights"], content["order"]
        whole = [*counts.values(), *order]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("they do not have the form of levels") from error
    if not all(type(one) is int for one in whole):
        raise ValueError("they do not have the form of levels")
    return Levels(counts, tuple(order))


def ordered(losses: Mapping[str, Sequence[float]], sizes: Mapping[str, Sequence[float]]) -> Levels:
    """The levels in the order of what each takes off the loss, byte by byte.

    A level that gains less than the one behind it does not come long before it: both are taken for one.

    Args:
        losses: of each weight with one level, with two, and so on.
        sizes: what each level takes.
    """
    steps: list[tuple[float, int, int]] = []
    for at, name in enumerate(losses):
        gained = [max(before - after, 0.0) for before, after in pairwise(losses[name])]
        gains = _falling(gained, sizes[name][1:])
        steps += [(-gain, at, level) for level, gain in enumerate(gains)]
    return Levels({name: len(one) for name, one in losses.items()}, tuple(at for _, at, _ in sorted(steps)))


def _falling(gains: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """What each level gains a byte, where those that would rise share theirs."""
    pools: list[tuple[float, float, int]] = []
    for gain, size in zip(gains, sizes, strict=True):
        pools.append((gain, size, 1))
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] <= pools[-1][0] * pools[-2][1]:
            last, before = pools.pop(), pools.pop()
            pools.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    return [gain / size if size else 0.0 for gain, size, count in pools for _ in range(count)]
