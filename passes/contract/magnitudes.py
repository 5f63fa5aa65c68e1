"""How large the numbers are that a layer reads: a histogram that any amount of data is added to."""

from dataclasses import dataclass, field

import numpy as np

SHIFT = 16  # bits of a float32 that are left out: 128 bins from one power of two to the next
BINS = 1 << 31 - SHIFT
INFINITE = 0x7F800000 >> SHIFT


def beyond(value: str, tokens: int) -> str:
    """What a value is called where so many of its first tokens are left out."""
    return f"{value}[{tokens}:]" if tokens else value


def at_positions(value: str) -> str:
    """What a value is called of which the largest magnitude at each place of a text is known."""
    return f"{value}[by token]"


@dataclass(frozen=True)
class Magnitudes:
    """Counts by bins that grow with the numbers, so that none need be known before.

    They are known by the name of the value, or where its first tokens are left out by `beyond`, and where each place
    counts by itself by `at_positions`.

    Args:
        counts: ``[BINS]``; a bin is the first 15 bits behind the sign of float32.
        lowest: of the numbers and zero, exactly.
        highest: likewise.
        leading: the tokens that were left out ``[tokens, channel]``, where they are the same in all samples.
        positions: the largest magnitude of the first token, the second, and so on ``[tokens]``; where that is known,
            nothing is counted.
    """

    counts: np.ndarray
    lowest: float
    highest: float
    leading: np.ndarray | None = field(default=None, compare=False, repr=False)
    positions: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def largest(self) -> float:
        """The largest magnitude; NaN where there is one."""
        return float(np.maximum(-self.lowest, self.highest))

    @classmethod
    def of(cls, array: np.ndarray) -> "Magnitudes":
        """Of one array."""
        numbers = array.astype(np.float32, copy=False)
        bits = np.abs(numbers).reshape(-1).view(np.uint32)
        ends = float(numbers.min(initial=0)), float(numbers.max(initial=0))
        return cls(np.bincount(bits >> SHIFT, minlength=BINS), *ends)

    def __add__(self, other: "Magnitudes") -> "Magnitudes":
        """Of both."""
        lowest, highest = np.minimum(self.lowest, other.lowest), np.maximum(self.highest, other.highest)
        return Magnitudes(self.counts + other.counts, float(lowest), float(highest))

    @property
    def finite(self) -> bool:
        """There is neither infinity nor NaN."""
        return not self.counts[INFINITE:].any()

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """The middles (float64) of the bins that are not empty, from the smallest on, and their counts."""
        used = np.flatnonzero(self.counts)
        middles = (used.astype(np.uint32) << SHIFT | 1 << SHIFT - 1).view(np.float32)
        return middles.astype(np.float64), self.counts[used]

    def quantile(self, share: float) -> float:
        """A magnitude, to a hundredth, that this share of all does not exceed."""
        total = np.cumsum(self.counts)
        if not total[-1]:
            return 0.0
        above = np.uint32(np.searchsorted(total, share * total[-1]) + 1 << SHIFT)
        return min(self.largest, float(above.view(np.float32)))
