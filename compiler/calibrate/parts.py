"""Samples in two parts, one to learn from and one to judge by, and batches of them that run at once."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Samples, digest_of

EVERY, FIRST = 4, 1  # of the samples one in so many is held out, from this one on
CAPTURED_BYTES = 1 << 26  # of what a run hands out, about
MOST_SAMPLES = 64


@dataclass(frozen=True)
class SamplePart:
    """Samples that run at once; ``held`` says that they are held out, ``repeated`` that each was there before."""

    feeds: Batch
    samples: int
    held: bool
    repeated: bool = False


@dataclass(frozen=True)
class Parted:
    """Samples one by one, each in one of two parts.

    A sample is a row of a batch that can be cut, else a whole feed. Samples that are equal are in one part: else one
    would be judged by what it has learned from. Of these all but the first are ``repeated``.
    """

    samples: Samples
    ones: tuple[Batch, ...]
    held: tuple[bool, ...]
    repeated: tuple[bool, ...]

    @classmethod
    def of(cls, samples: Samples) -> "Parted":
        """Hold out a quarter."""
        ones = tuple(samples.parts(1))
        distinct: dict[str, int] = {}
        counts, places = [], []
        for one in ones:
            counts.append(len(distinct))
            places.append(distinct.setdefault(digest_of(one), len(distinct)))
        held = tuple(place % EVERY == FIRST for place in places)
        return cls(samples, ones, held, tuple(place < count for place, count in zip(places, counts, strict=True)))

    def batches(self, captured: "Captured") -> Iterator[SamplePart]:
        """Samples of one part and one shape together, as many as a run should take."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for at, one in enumerate(self.ones):
            kind = self.samples.kind(one) if self.samples.divisible else (at,)
            groups.setdefault((self.held[at], self.repeated[at], *kind), []).append(at)
        for members in groups.values():
            while members:
                count = captured.affordable(self.ones[members[0]])
                taken, members = members[:count], members[count:]
                first, feeds = taken[0], self.samples.joined([self.ones[at] for at in taken])
                yield SamplePart(feeds, len(taken), self.held[first], self.repeated[first])


@dataclass
class Captured:
    """How much a run hands out for what it is fed, by the last run."""

    ratio: float = CAPTURED_BYTES

    def note(self, feeds: Batch, results: Batch) -> None:
        """A run is done."""
        self.ratio = _bytes(results) / max(_bytes(feeds), 1)

    def affordable(self, one: Batch) -> int:
        """How many samples like this one to run at once."""
        each = self.ratio * max(_bytes(one), 1)
        return int(min(max(CAPTURED_BYTES / max(each, 1), 1), MOST_SAMPLES))


def _bytes(batch: Batch) -> int:
    return sum(array.nbytes for array in batch.values() if isinstance(array, np.ndarray))


def held_out(samples: Samples) -> Samples | None:
    """The samples that are held out, in their order; None if there are none."""
    parted = Parted.of(samples)
    kept = [one for one, held in zip(parted.ones, parted.held, strict=True) if held]
    if not kept:
        return None
    return replace(samples, batches=samples.neighbours(kept) if samples.divisible else tuple(kept))
