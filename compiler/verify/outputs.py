"""Comparing the file that was written with the model that came in, both as ONNX Runtime runs them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.verify.differences import Distance, Measures, Pair, distance
from qcc.dsl.policy.policy import Bound
from qcc.ir.graph.graph import Runner

SAMPLES = 32
OUTPUT_BYTES = 1 << 26  # of the reference outputs that are held
LISTED_SHAPES = 3
EMPTY = "is empty on this data"
NOTHING_FINITE = "holds nothing finite on this data"


@dataclass(frozen=True)
class OutputCheck:
    """How one output of the compressed model compares with the input model's.

    ``cosine`` is the mean over samples; ``sqnr`` is in dB; ``relative_error`` is the largest error over the largest
    value; ``changed`` is the share of whole numbers that differ. Of numbers these are the worse of two: of the values
    as they are, and of what varies from sample to sample.
    """

    output: str
    cosine: float
    sqnr: float
    relative_error: float
    changed: float | None = None
    whole: Measures | None = None
    """Of the values as they are, where what varies is judged too."""
    notes: tuple[str, ...] = ()
    """What the figures do not say, for people."""
    kept: Measures | None = None
    """Without the values that became finite or ceased to be, where the original is not all finite and some did."""
    unverified: str = ""
    """Why the figures say nothing about the weights, if they do not."""

    @property
    def plain(self) -> Measures:
        """Of the values as they are."""
        return self.whole or Measures(self.cosine, self.sqnr, self.relative_error)


@dataclass(frozen=True)
class Floor:
    """How far the original is from itself, and by what factor a compressed model's error may be larger."""

    check: OutputCheck
    factor: float
    reason: str

    def excuses(self, metric: str, value: float) -> bool:
        """An error that is no larger says nothing against the compressed model."""
        own = float(getattr(self.check, metric))
        if metric == "cosine":
            return 1 - value <= self.factor**2 * (1 - own)
        if metric == "sqnr":
            return value >= own - 20 * math.log10(self.factor)
        return value <= self.factor * own


Floors = Mapping[str, Floor]


@dataclass(frozen=True)
class BoundCheck:
    """A bound of the policy's ``verify`` with the value found, and what it is held to instead, if anything."""

    bound: Bound
    value: float
    passed: bool
    output: str = ""
    excuse: str = ""


@dataclass(frozen=True)
class Loser:
    """A weight of a model that failed: its noise over the signal at the outputs when it alone is encoded.

    ``share`` is that of the noise that all weights make.
    """

    weight: str
    loss: float
    share: float


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
    notes: tuple[str, ...] = ()
    """What was not verified, and what the original itself does not keep."""
    losers: tuple[Loser, ...] = ()
    """After a failure, the weights that lose most, the worst first."""

    @property
    def passed(self) -> bool:
        """Every bound holds."""
        return all(check.passed for check in self.bounds)

    @property
    def generated(self) -> bool:
        """Nobody gave data."""
        return self.origin == "generated"


def run(runner: Runner, batches: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """The outputs, batch by batch."""
    return [flattened(runner(batch)) for batch in batches]


def compare(
    reference: Sequence[Mapping[str, np.ndarray]],
    outputs: Sequence[Mapping[str, np.ndarray]],
    samples: Sequence[int] | None = None,
) -> tuple[OutputCheck, ...]:
    """Compare output by output over all batches.

    Args:
        reference: what is wanted, batch by batch.
        outputs: what was got.
        samples: how many are in each batch; None takes the first axis of each output for them.
    """
    names = dict.fromkeys(name for batch in (*reference, *outputs) for name in batch)
    return tuple(_compare(name, reference, outputs, samples) for name in names)


def judge(
    bounds: Sequence[Bound], outputs: Sequence[OutputCheck], floors: Floors | None = None
) -> tuple[BoundCheck, ...]:
    """Hold the worst output to each bound; where the original is no nearer to itself, to that."""
    return tuple(_judge(bound, outputs, floors or {}) for bound in bounds)


def _judge(bound: Bound, outputs: Sequence[OutputCheck], floors: Floors) -> BoundCheck:
    found = [_held(bound, check, floors.get(check.output)) for check in outputs]
    sign = 1 if bound.relation == ">=" else -1
    worst = min(found, key=lambda one: (one.passed, sign * one.value), default=BoundCheck(bound, 0.0, True))
    excuse = next((one.excuse for one in found if one.excuse), "")
    return replace(worst, excuse=excuse if worst.passed else "")


def _held(bound: Bound, check: OutputCheck, floor: Floor | None) -> BoundCheck:
    value, limit = float(getattr(check, bound.metric)), bound.quantity.of(1.0)
    if value >= limit if bound.relation == ">=" else value <= limit:
        return BoundCheck(bound, value, True, check.output)
    if floor is not None and floor.excuses(bound.metric, value):
        return BoundCheck(bound, value, True, check.output, f"`{check.output}` {floor.reason}")
    return BoundCheck(bound, value, False, check.output)


def _compare(
    name: str,
    reference: Sequence[Mapping[str, np.ndarray]],
    outputs: Sequence[Mapping[str, np.ndarray]],
    samples: Sequence[int] | None,
) -> OutputCheck:
    pairs: list[Pair] = []
    counts: list[int] = []
    reshaped: list[str] = []
    for at, (want, have) in enumerate(zip(reference, outputs, strict=True)):
        if name in want and name in have and want[name].shape == have[name].shape:
            pairs.append((want[name], have[name]))
            counts.append(samples[at] if samples else want[name].shape[0] if want[name].ndim else 1)
        elif name in want or name in have:
            reshaped.append(_reshaped(want.get(name), have.get(name)))
    lost = len(reshaped) / max(len(reshaped) + len(pairs), 1)
    notes = _shape_notes(reshaped, len(reshaped) + len(pairs))
    if pairs and pairs[0][0].dtype.kind in "fcV":
        return _numbers(name, distance(pairs, counts if samples else None), lost, notes)
    shares = [float(np.mean(_differ(want, have))) if want.size else 0.0 for want, have in pairs] + [1.0] * len(reshaped)
    changed = float(np.mean(shares)) if shares else 0.0
    unverified = "" if changed or any(want.size for want, _ in pairs) else EMPTY
    sqnr = 0.0 if changed else np.inf
    return OutputCheck(name, 1 - changed, sqnr, changed, changed, notes=notes, unverified=unverified)


def _numbers(name: str, found: Distance, lost: float, notes: tuple[str, ...]) -> OutputCheck:
    """The check of an output of numbers, of which a share of the batches has another shape."""
    judged, reason = found.whole, ""
    if found.varying is not None:
        judged = judged.worse(found.varying)
    if lost:
        sqnr = -10 * math.log10(10 ** (-judged.sqnr / 10) * (1 - lost) + lost)
        judged = Measures(judged.cosine * (1 - lost), min(judged.sqnr, sqnr), max(judged.relative_error, 1.0))
    if found.strays:
        notes = (*notes, f"{found.strays:,} of {found.size:,} values are finite on one side only, or not alike")
    if not found.size and not lost:
        reason = EMPTY
    elif found.size and not found.finite:
        reason = NOTHING_FINITE
    elif found.constant:
        reason = "is the same on all samples"
    whole = found.whole if found.varying is not None or lost else None
    return OutputCheck(
        name,
        judged.cosine,
        judged.sqnr,
        judged.relative_error,
        None,
        whole,
        notes,
        found.kept,
        reason,
    )


def _differ(want: np.ndarray, have: np.ndarray) -> np.ndarray:
    return np.asarray(want != have)


def _reshaped(want: np.ndarray | None, have: np.ndarray | None) -> str:
    """How a shape changed: by the one axis that did, or whole."""
    if want is not None and have is not None and want.ndim == have.ndim:
        axes = [at for at in range(want.ndim) if want.shape[at] != have.shape[at]]
        if len(axes) == 1:
            where = "rows" if axes[0] == 0 else f"along axis {axes[0]}"
            return f"{want.shape[axes[0]]:,} -> {have.shape[axes[0]]:,} {where}"
    return f"{_shape(want)} -> {_shape(have)}"


def _shape(array: np.ndarray | None) -> str:
    return "absent" if array is None else "x".join(map(str, array.shape)) or "a scalar"


def _shape_notes(reshaped: Sequence[str], batches: int) -> tuple[str, ...]:
    if not reshaped:
        return ()
    shown = ", ".join(reshaped[:LISTED_SHAPES]) + (", ..." if len(reshaped) > LISTED_SHAPES else "")
    return (f"its shape changed in {len(reshaped):,} of {batches:,} runs: {shown}",)
