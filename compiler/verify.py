"""Comparing the file that was written with the model that came in, both as ONNX Runtime runs them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.dsl.policy import Bound
from qcc.ir.graph import Runner

SAMPLES = 32
OUTPUT_BYTES = 1 << 26  # of the reference outputs that are held


@dataclass(frozen=True)
class OutputCheck:
    """How one output of the compressed model compares with the input model's.

    ``cosine`` is the mean over samples; ``sqnr`` is in dB; ``relative_error`` is the largest error over the largest
    value; ``changed`` is the share of whole numbers that differ.
    """

    output: str
    cosine: float
    sqnr: float
    relative_error: float
    changed: float | None = None


@dataclass(frozen=True)
class BoundCheck:
    """A bound of the policy's ``verify`` with the value found."""

    bound: Bound
    value: float
    passed: bool


@dataclass(frozen=True)
class Verification:
    """The comparison, output by output, and what became of the policy's bounds.

    ``outputs`` are those of plain ONNX Runtime, ``kernel_outputs`` those with the kernels, where they run here; the
    bounds hold for both.
    """

    outputs: tuple[OutputCheck, ...]
    bounds: tuple[BoundCheck, ...]
    samples: int
    origin: str
    kernel_outputs: tuple[OutputCheck, ...] = ()

    @property
    def passed(self) -> bool:
        """Every bound holds."""
        return all(check.passed for check in self.bounds)


def run(runner: Runner, batches: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """The outputs, batch by batch."""
    return [runner(batch) for batch in batches]


def compare(
    reference: Sequence[Mapping[str, np.ndarray]], outputs: Sequence[Mapping[str, np.ndarray]]
) -> tuple[OutputCheck, ...]:
    """Compare output by output over all batches."""
    return tuple(
        _compare(name, [(r[name], o[name]) for r, o in zip(reference, outputs, strict=True)]) for name in reference[0]
    )


def judge(bounds: Sequence[Bound], outputs: Sequence[OutputCheck]) -> tuple[BoundCheck, ...]:
    """Hold the worst output to each bound."""
    checks = []
    for bound in bounds:
        values = [float(getattr(check, bound.metric)) for check in outputs]
        value = (min if bound.relation == ">=" else max)(values, default=0.0)
        limit = bound.quantity.of(1.0)
        checks.append(BoundCheck(bound, value, value >= limit if bound.relation == ">=" else value <= limit))
    return tuple(checks)


def _compare(name: str, pairs: list[tuple[np.ndarray, np.ndarray]]) -> OutputCheck:
    if pairs[0][0].dtype.kind not in "fV":
        changed = float(np.mean([np.mean(wanted != got) if wanted.size else 0.0 for wanted, got in pairs]))
        same = changed == 0
        return OutputCheck(name, 1.0 if same else 1 - changed, np.inf if same else 0.0, changed, changed)
    cosines: list[float] = []
    signal = noise = largest = worst = 0.0
    for w, g in (sample for pair in pairs for sample in _samples(*pair)):
        cosines.append(_cosine(w, g))
        signal += float(np.vdot(w, w))
        largest = max(largest, float(np.abs(w).max(initial=0)))
        g -= w
        noise += float(np.vdot(g, g))
        worst = max(worst, float(np.abs(g).max(initial=0)))
    if not np.isfinite(noise):
        return OutputCheck(name, -1.0, -np.inf, np.inf)
    sqnr = np.inf if noise == 0 else -np.inf if signal == 0 else 10 * np.log10(signal / noise)
    relative = 0.0 if worst == 0 else worst / largest if largest else np.inf
    return OutputCheck(name, float(np.mean(cosines)) if cosines else 1.0, float(sqnr), relative)


def _samples(wanted: np.ndarray, got: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Two arrays sample by sample, flat, in double precision."""
    if wanted.ndim == 0:
        wanted, got = wanted[None], got[None]
    for w, g in zip(wanted, got, strict=True):
        yield w.astype(np.float64).reshape(-1), g.astype(np.float64).reshape(-1)


def _cosine(wanted: np.ndarray, got: np.ndarray) -> float:
    scale = float(np.linalg.norm(wanted) * np.linalg.norm(got))
    return float(wanted @ got) / scale if scale else float(np.array_equal(wanted, got))
