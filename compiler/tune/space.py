"""What values of parameters may be tried, and which are tried next."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Choice = dict[str, str]
NEAR = 0.2  # of a range, the spread of what is tried beside the best so far
CHANGED = 0.5  # the chance of each parameter to change there
DRAWS = 50  # until a choice is met that was not tried


@dataclass(frozen=True)
class Axis:
    """The values of a parameter.

    Args:
        name: of the parameter.
        words: that it may be, one by one; empty where it is a number between two.
        low: the least number.
        high: the largest.
        unit: behind numbers.
        whole: they are whole numbers.
    """

    name: str
    words: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    unit: str = ""
    whole: bool = False

    @property
    def size(self) -> float:
        """How many values there are."""
        if self.words:
            return len(self.words)
        return self.high - self.low + 1 if self.whole else math.inf

    def at(self, share: float) -> str:
        """The value at a share of the range: by equal ratios where the range has no zero, else by equal steps."""
        if self.words:
            return self.words[min(int(share * len(self.words)), len(self.words) - 1)]
        if self.low > 0:
            number = self.low * (self.high / self.low) ** share
        else:
            number = self.low + (self.high - self.low) * share
        return f"{round(number) if self.whole else float(f'{number:.4g}'):g}{self.unit}"


class Search:
    """Tries a third at random, and then changes the best so far."""

    def __init__(self, axes: Sequence[Axis], runs: int, seed: int) -> None:
        self._axes, self._first = axes, max(runs // 3, 1)
        self._rng = np.random.default_rng(seed)
        self._places: dict[tuple[str, ...], np.ndarray] = {}

    def next(self, done: int, best: Mapping[str, str] | None) -> Choice | None:
        """Another choice that was not tried; None where none is met."""
        key = None if best is None else tuple(best[one.name] for one in self._axes)
        around = self._places.get(key) if key is not None and done >= self._first else None
        for _ in range(DRAWS):
            place = self._rng.random(len(self._axes))
            if around is not None:
                moved = np.clip(around + NEAR * self._rng.standard_normal(len(place)), 0, 1 - 1e-9)
                place = np.where(self._rng.random(len(place)) < CHANGED, moved, around)
            words = tuple(one.at(float(share)) for one, share in zip(self._axes, place, strict=True))
            if words not in self._places:
                self._places[words] = place
                return dict(zip((one.name for one in self._axes), words, strict=True))
        return None
