"""How far two runs of one output are apart: over all of it, and over what varies from sample to sample."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.compiler.metrics.find import judged
from qcc.compiler.metrics.metric import Compared, Judged, Pair

CONSTANT = 1e-5  # of an output's size: what varies less is rounding
LARGEST = 1e120  # whose square is still a number


@dataclass(frozen=True)
class Measures:
    """What metrics say of two runs, by their names."""

    values: Mapping[str, float]

    @property
    def cosine(self) -> float:
        """Which every report tells, as it does the next two."""
        return self.values["cosine"]

    @property
    def sqnr(self) -> float:
        """In dB."""
        return self.values["sqnr"]

    @property
    def relative_error(self) -> float:
        """The largest error over the largest value."""
        return self.values["relative_error"]

    def worse(self, other: "Measures") -> "Measures":
        """The worse of each."""
        known = judged()
        return Measures({name: known[name].worse(one, other.values[name]) for name, one in self.values.items()})

    def without(self, share: float) -> "Measures":
        """Where a share of the values is finite in one run only and counts as lost."""
        return Measures({name: judged()[name].without(one, share) for name, one in self.values.items()})

    def reshaped(self, share: float) -> "Measures":
        """Where a share of the batches has another shape."""
        return Measures({name: judged()[name].reshaped(one, share) for name, one in self.values.items()})


def changed_numbers(share: float, metrics: Sequence[Judged]) -> Measures:
    """Of whole numbers, of which a share differs."""
    return Measures({one.name: one.changed(share) for one in metrics})


@dataclass(frozen=True)
class Distance:
    """Of two runs.

    Args:
        whole: measures of the values as they are.
        varying: of the values less their mean over the samples; None where there is nothing to take a mean of, or
            nothing varies.
        constant: the first run is the same on all of several samples.
        strays: values that are finite in one run and not in the other, or not in the same way.
        broken: strays of values that are all finite in the first run.
        size: how many values were compared.
        finite: how many of them are finite in the first run.
        kept: where there are strays, the worse of both measures over the other values.
    """

    whole: Measures
    varying: Measures | None
    constant: bool
    strays: int
    broken: bool
    size: int
    finite: int
    kept: Measures | None = None


def distance(pairs: Sequence[Pair], samples: Sequence[int] | None, metrics: Sequence[Judged]) -> Distance:
    """Compare runs, batch by batch, of equal shapes.

    Places that are not finite must be so in both runs and are left out; where they differ the value counts as lost.

    Args:
        pairs: what is wanted, and what was got.
        samples: how many are in each batch; None takes the first axis for them.
        metrics: to be measured.
    """
    strays = size = finite = 0
    cleaned: list[Pair] = []
    for wanted, got in pairs:
        want, have = _real(wanted), _real(got)
        odd = ~(np.isfinite(want) & np.isfinite(have))
        alike = (want == have) | (np.isnan(want) & np.isnan(have))
        strays += int(np.sum(odd & ~alike))
        finite += int(np.isfinite(want).sum())
        size += want.size
        cleaned.append((np.where(odd, 0, want), np.where(odd, 0, have)) if odd.any() else (want, have))
    largest = max((float(np.abs(one).max(initial=0)) for pair in cleaned for one in pair), default=0.0)
    if largest > LARGEST:
        cleaned = [(want / largest, have / largest) for want, have in cleaned]
    broken = strays > 0 and finite == size
    if broken:
        lost = Measures({one.name: one.lost for one in metrics})
        return Distance(lost, None, False, strays, broken, size, finite)
    compared = Compared(cleaned, list(_rows(cleaned, samples)))
    whole = Measures({one.name: one.of(compared) for one in metrics})
    varying, constant = _varying(compared, whole, metrics)
    kept = whole.worse(varying or whole) if strays else None
    if strays:
        whole, varying = whole.without(strays / size), varying and varying.without(strays / size)
    return Distance(whole, varying, constant, strays, broken, size, finite, kept)


def _varying(compared: Compared, whole: Measures, metrics: Sequence[Judged]) -> tuple[Measures | None, bool]:
    """Of what varies over samples; and that nothing does, though there are several."""
    if compared.signal is None:
        return None, False
    signal, power = (float(np.vdot(one, one)) for one in (compared.signal[0], _stacked(compared)))
    if signal <= CONSTANT**2 * power:
        return None, True
    found = {one.name: one.varying(compared) for one in metrics}
    return Measures({name: whole.values[name] if value is None else value for name, value in found.items()}), False


def _stacked(compared: Compared) -> np.ndarray:
    assert compared.stacked is not None
    return compared.stacked[0]


def _real(array: np.ndarray) -> np.ndarray:
    """In double precision; a complex number is two."""
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], axis=-1)
    return array.astype(np.float64)


def _rows(pairs: Sequence[Pair], samples: Sequence[int] | None) -> Iterator[Pair]:
    """Sample by sample, flat; where the first axis does not count samples, batch by batch."""
    counts = samples or [pair[0].shape[0] if pair[0].ndim else 1 for pair in pairs]
    alike = all(want.ndim > 0 and want.shape[0] == count for (want, _), count in zip(pairs, counts, strict=True))
    for want, have in pairs:
        if alike:
            yield from ((w.reshape(-1), h.reshape(-1)) for w, h in zip(want, have, strict=True))
        else:
            yield want.reshape(-1), have.reshape(-1)
