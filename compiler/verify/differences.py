"""How far two runs of one output are apart: over all of it, and over what varies from sample to sample."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

CONSTANT = 1e-5  # of an output's size: what varies less is rounding
LARGEST = 1e120  # whose square is still a number

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Measures:
    """Cosine, signal to noise in dB, and the largest error over the largest value."""

    cosine: float = 1.0
    sqnr: float = np.inf
    relative_error: float = 0.0

    def worse(self, other: "Measures") -> "Measures":
        """The worse of each."""
        error = max(self.relative_error, other.relative_error)
        return Measures(min(self.cosine, other.cosine), min(self.sqnr, other.sqnr), error)


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


def distance(pairs: Sequence[Pair], samples: Sequence[int] | None = None) -> Distance:
    """Compare runs, batch by batch, of equal shapes.

    Places that are not finite must be so in both runs and are left out; where they differ the value counts as lost.

    Args:
        pairs: what is wanted, and what was got.
        samples: how many are in each batch; None takes the first axis for them.
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
        return Distance(Measures(-1.0, -np.inf, np.inf), None, False, strays, broken, size, finite)
    rows = list(_rows(cleaned, samples))
    whole = _whole(rows)
    varying, constant = _varying(rows)
    kept = whole.worse(varying or whole) if strays else None
    whole, varying = _lose(whole, strays, size), varying and _lose(varying, strays, size)
    return Distance(whole, varying, constant, strays, broken, size, finite, kept)


def _whole(rows: Sequence[Pair]) -> Measures:
    cosines: list[float] = []
    signal = noise = largest = worst = 0.0
    for want, have in rows:
        cosines.append(_cosine(want, have))
        signal += float(np.vdot(want, want))
        largest = max(largest, float(np.abs(want).max(initial=0)))
        error = have - want
        noise += float(np.vdot(error, error))
        worst = max(worst, float(np.abs(error).max(initial=0)))
    return Measures(float(np.mean(cosines)) if cosines else 1.0, _sqnr(signal, noise), _ratio(worst, largest))


def _varying(rows: Sequence[Pair]) -> tuple[Measures | None, bool]:
    """What varies: the cosine takes each run's own mean off, so that it tells of the variation alone."""
    if len(rows) < 2 or len({want.size for want, _ in rows}) > 1 or rows[0][0].size == 0:
        return None, False
    want, have = (np.stack([pair[at] for pair in rows]) for at in (0, 1))
    error, power = have - want, float(np.vdot(want, want))
    want -= want.mean(axis=0)
    have -= have.mean(axis=0)
    signal = float(np.vdot(want, want))
    if signal <= CONSTANT**2 * power:
        return None, True
    sqnr = _sqnr(signal, float(np.vdot(error, error)))
    relative = _ratio(float(np.abs(error).max()), float(np.abs(want).max()))
    return Measures(_cosine(want.reshape(-1), have.reshape(-1)), sqnr, relative), False


def _lose(found: Measures, strays: int, size: int) -> Measures:
    """Count values that are finite in one run only as lost: as noise as strong as the signal."""
    if not strays:
        return found
    share = strays / size
    sqnr = -10 * np.log10(10 ** (-found.sqnr / 10) + share)
    return Measures(min(found.cosine, 1 - share), float(sqnr), max(found.relative_error, 1.0))


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


def _cosine(wanted: np.ndarray, got: np.ndarray) -> float:
    if np.array_equal(wanted, got):
        return 1.0
    scale = float(np.linalg.norm(wanted) * np.linalg.norm(got))
    return float(wanted @ got) / scale if scale else 0.0


def _sqnr(signal: float, noise: float) -> float:
    return np.inf if noise == 0 else -np.inf if signal == 0 else float(10 * np.log10(signal / noise))


def _ratio(worst: float, largest: float) -> float:
    return 0.0 if worst == 0 else worst / largest if largest else np.inf
