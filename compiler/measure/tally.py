"""Noise beside signal at a model's outputs, sample by sample: sums that add up, with how sure they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.metrics.metric import Additive
from qcc.compiler.metrics.output_error import OutputError
from qcc.ir.graph.ops import Array

NOISE = OutputError()
BLOCK = 1 << 17  # numbers that are compared at a time


@dataclass(frozen=True)
class Tally:
    """Powers ``[samples]`` of noise and of signal, by output.

    An output of which no axis counts the samples has one number for the whole batch.
    """

    noise: Mapping[str, Array] = field(default_factory=dict)
    signal: Mapping[str, Array] = field(default_factory=dict)

    def __add__(self, other: "Tally") -> "Tally":
        """Of the samples of both."""
        return Tally(_joined(self.noise, other.noise), _joined(self.signal, other.signal))

    @property
    def loss(self) -> float:
        """Noise over signal, averaged over the outputs; an output without a signal loses nothing."""
        return float(np.mean(list(self._ratios().values()))) if self.noise else 0.0

    @property
    def samples(self) -> int:
        """How many observations there are of each output."""
        return min((len(one) for one in self.noise.values()), default=0)

    @property
    def error(self) -> float:
        """The standard error of the loss, as if outputs erred together; infinite for a single sample."""
        if self.samples < 2:
            return np.inf if self.noise else 0.0
        found = [self._error(name, ratio) for name, ratio in self._ratios().items()]
        return float(np.mean(found))

    def _error(self, name: str, ratio: float) -> float:
        """Of a ratio of sums: by what samples have over their share of it."""
        noise, signal = self.noise[name], self.signal[name]
        total, count = float(signal.sum()), len(noise)
        if not total:
            return 0.0
        return float(np.sqrt(np.sum((noise - ratio * signal) ** 2) * count / (count - 1))) / total

    def _ratios(self) -> dict[str, float]:
        totals = {name: float(one.sum()) for name, one in self.signal.items()}
        return {name: float(one.sum()) / totals[name] if totals[name] else 0.0 for name, one in self.noise.items()}


def output_noise(
    outputs: Mapping[str, object],
    reference: Mapping[str, object],
    size: int,
    sight: Mapping[str, Array] | None = None,
    metric: Additive = NOISE,
) -> Tally:
    """The powers of what outputs are off by, and of the reference; for whole numbers, how many changed, of how many.

    What is not finite on either side does not count. An output of another shape, or missing, is off by all of itself.

    Args:
        outputs: of a batch.
        reference: what they should be.
        size: samples in the batch.
        sight: of some outputs, which rows count: an index of all axes but the last.
        metric: what noise and signal are.
    """
    noise: dict[str, Array] = {}
    signal: dict[str, Array] = {}
    got = flattened(outputs)
    for name, wanted in flattened(reference).items():
        parts = size if wanted.ndim and wanted.shape[0] == size else 1
        kept = (sight or {}).get(name)
        noise[name], signal[name] = _powers(wanted, got.get(name), kept, parts, metric)
    return Tally(noise, signal)


def _powers(wanted: Array, got: Array | None, kept: Array | None, parts: int, metric: Additive) -> tuple[Array, Array]:
    """Noise and signal of the parts of an output."""
    whole = got is not None and got.shape == wanted.shape
    if wanted.dtype.kind not in "fV":
        changed = wanted != got if whole else np.ones(wanted.shape, bool)
        powers = _rows(changed, parts).sum(axis=-1, dtype=np.float64), _rows(np.ones(wanted.shape, bool), parts)
        return _sums(powers[0], kept, parts), _sums(powers[1].sum(axis=-1, dtype=np.float64), kept, parts)
    have = wanted if got is None or not whole else got
    noise, signal = _row_powers(_rows(wanted, parts), _rows(have, parts), metric)
    noise, signal = (_sums(one, kept, parts) for one in (noise, signal))
    if not whole:
        signal = np.where(signal > 0, signal, 1.0)
        return signal, signal
    return noise, signal


def _rows(array: Array, parts: int) -> Array:
    """An output as rows of its last axis, none of which belongs to two samples."""
    if array.ndim > 1:
        return array.reshape(-1, array.shape[-1]) if array.size else array.reshape(0, 1)
    return array.reshape(parts, -1) if array.size else array.reshape(0, 1)


def _row_powers(wanted: Array, got: Array, metric: Additive) -> tuple[Array, Array]:
    """Noise and signal of each row, without what is not finite; a few rows at a time, so that caches hold them."""
    noise, signal = np.zeros(len(wanted)), np.zeros(len(wanted))
    step = max(BLOCK // max(wanted.shape[-1], 1), 1)
    for start in range(0, len(wanted), step):
        at = slice(start, start + step)
        want, have = wanted[at].astype(np.float64), got[at].astype(np.float64)
        lost = ~(np.isfinite(want) & np.isfinite(have))
        want[lost] = have[lost] = 0.0
        noise[at], signal[at] = (one.sum(axis=-1) for one in metric.powers(want, have))
    return noise, signal


def _sums(powers: Array, kept: Array | None, parts: int) -> Array:
    """Of the rows of each sample, those that count."""
    if kept is not None:
        powers = powers * kept.reshape(-1)
    return powers.reshape(parts, -1).sum(axis=1, dtype=np.float64) if powers.size else np.zeros(parts)


def _joined(one: Mapping[str, Array], other: Mapping[str, Array]) -> dict[str, Array]:
    empty = np.zeros(0)
    return {name: np.concatenate([one.get(name, empty), other.get(name, empty)]) for name in {**one, **other}}
