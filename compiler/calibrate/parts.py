"""Samples in two parts, one to learn from and one to judge by."""

from dataclasses import dataclass, replace

from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Samples, digest_of

EVERY, FIRST = 4, 1  # of the samples one in so many is held out, from this one on


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


def held_out(samples: Samples) -> Samples | None:
    """The samples that are held out, in their order; None if there are none."""
    parted = Parted.of(samples)
    kept = [one for one, held in zip(parted.ones, parted.held, strict=True) if held]
    if not kept:
        return None
    return replace(samples, batches=samples.neighbours(kept) if samples.divisible else tuple(kept))
