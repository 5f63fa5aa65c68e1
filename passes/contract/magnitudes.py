"""How large the numbers are that a layer reads: a histogram that any amount of data is added to."""

from dataclasses import dataclass

import numpy as np

SHIFT = 16  # bits of a float32 that are left out: 128 bins from one power of two to the next
BINS = 1 << 31 - SHIFT
INFINITE = 0x7F800000 >> SHIFT


@dataclass(frozen=True)
class Magnitudes:
    """Counts by bins that grow with the numbers, so that none need be known before.

    Args:
        counts: ``[BINS]``; a bin is the first 15 bits behind the sign of float32.
        largest: exactly.
    """

    counts: np.ndarray
    largest: float

    @classmethod
    def of(cls, array: np.ndarray) -> "Magnitudes":
        """Of one array."""
        bits = np.abs(array.astype(np.float32, copy=False)).reshape(-1).view(np.uint32)
        largest = np.array(bits.max(initial=0), np.uint32).view(np.float32)
        return cls(np.bincount(bits >> SHIFT, minlength=BINS), float(largest))

    def __add__(self, other: "Magnitudes") -> "Magnitudes":
        """Of both."""
        return Magnitudes(self.counts + other.counts, float(np.maximum(self.largest, other.largest)))

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
