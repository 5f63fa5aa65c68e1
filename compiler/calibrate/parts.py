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
    """Samples that run at once; ``held`` says that they are held out."""

    feeds: Batch
    samples: int
    held: bool


@dataclass(frozen=True)
class Parted:
    """Samples one by one, each in one of two parts.

    A sample is a row of a batch that can be cut, else a whole feed. Samples that are equal are in one part: else one
    would be judged by what it has learned from.
    """

    samples: Samples
    ones: tuple[Batch, ...]
    held: tuple[bool, ...]

    @classmethod
    def of(cls, samples: Samples) -> "Parted":
        """Hold out a quarter."""
        ones = tuple(samples.parts(1))
        distinct: dict[str, int] = {}
        places = [distinct.setdefault(digest_of(one), len(distinct)) for one in ones]
        return cls(samples, ones, tuple(place % EVERY == FIRST for place in places))

    def batches(self, captured: "Captured") -> Iterator[SamplePart]:
        """Samples of one part and one shape together, as many as a run should take."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for at, (one, held) in enumerate(zip(self.ones, self.held, strict=True)):
            kind = self.samples.kind(one) if self.samples.divisible else (at,)
            groups.setdefault((held, *kind), []).append(at)
        for members in groups.values():
            while members:
                count = captured.affordable(self.ones[members[0]])
                taken, members = members[:count], members[count:]
                yield SamplePart(self.samples.joined([self.ones[at] for at in taken]), len(taken), self.held[taken[0]])


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
