"""Comparing the file that was written with the model that came in, both as ONNX Runtime runs them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.metrics.find import judged, to_measure
from qcc.compiler.metrics.metric import Judged, Pair
from qcc.compiler.observe.executor import HERE, Executor
from qcc.compiler.scores.check import ScoreCheck
from qcc.compiler.sequence.token_runs import Driven
from qcc.compiler.verify.differences import Distance, Measures, changed_numbers, distance
from qcc.dsl.policy.policy import Bound
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.in_pieces import run_each

SAMPLES = 32
OUTPUT_BYTES = 1 << 26  # of the reference outputs that are held
LISTED_SHAPES = 3
EMPTY = "is empty on this data"
NOTHING_FINITE = "holds nothing finite on this data"


@dataclass(frozen=True)
class OutputCheck:
    """How one output of the compressed model compares with the input model's.

    ``found`` is what metrics say; ``changed`` is the share of whole numbers that differ. Of numbers it is the worse of
    two: of the values as they are, and of what varies from sample to sample.
    """

    output: str
    found: Measures
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
        return self.whole or self.found

    @property
    def cosine(self) -> float:
        """Which every report tells, as it does the next two."""
        return self.found.cosine

    @property
    def sqnr(self) -> float:
        """In dB."""
        return self.found.sqnr

    @property
    def relative_error(self) -> float:
        """The largest error over the largest value."""
        return self.found.relative_error


@dataclass(frozen=True)
class Floor:
    """How far the original is from itself, and by what factor a compressed model's error may be larger."""

    check: OutputCheck
    factor: float
    reason: str

    def excuses(self, metric: str, value: float) -> bool:
        """An error that is no larger says nothing against the compressed model."""
        noise = judged()[metric].noise
        return noise(value) <= self.factor**2 * noise(self.check.found.values[metric])


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
    bounds hold for both. ``stand_in`` says what was run for ``outputs`` in place of the written file; empty where the
    file was.
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
    scores: tuple[ScoreCheck, ...] = ()
    """What is lost of the user's scores, where bounds name them."""
    stand_in: str = ""
    driven: Driven | None = None
    """What runs over tokens came to, of a model of tokens with caches, on data that was given."""

    @property
    def passed(self) -> bool:
        """Every bound holds."""
        return all(check.passed for check in self.bounds)

    @property
    def generated(self) -> bool:
        """Nobody gave data."""
        return self.origin == "generated"

    def judged(self, scores: Sequence[ScoreCheck]) -> "Verification":
        """With what is lost of the user's scores, which is bounded, too."""
        found = (BoundCheck(one.bound, one.drop.judged, one.passed) for one in scores)
        return replace(self, bounds=(*self.bounds, *found), scores=tuple(scores))


MakeRunner = Callable[[], Runner]


def run(
    make: MakeRunner, batches: Sequence[Mapping[str, np.ndarray]], executor: Executor = HERE
) -> list[dict[str, np.ndarray]]:
    """The outputs, batch by batch.

    Args:
        make: makes what runs them, once in every place where that is done.
        batches: the feeds.
        executor: where it is run.
    """
    if executor.workers == 1:
        return [flattened(found) for found in run_each(make(), batches)]
    return list(executor.each(_Flat(make), batches))


@dataclass(frozen=True)
class _Flat:
    """Makes what runs one batch."""

    make: MakeRunner

    def __call__(self) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        runner = self.make()
        return lambda batch: flattened(runner(batch))


def compare(
    reference: Sequence[Mapping[str, np.ndarray]],
    outputs: Sequence[Mapping[str, np.ndarray]],
    samples: Sequence[int] | None = None,
    metrics: Sequence[Judged] | None = None,
) -> tuple[OutputCheck, ...]:
    """Compare output by output over all batches.

    Args:
        reference: what is wanted, batch by batch.
        outputs: what was got.
        samples: how many are in each batch; None takes the first axis of each output for them.
        metrics: to be measured; by default those that every report tells.
    """
    chosen = to_measure() if metrics is None else metrics
    names = dict.fromkeys(name for batch in (*reference, *outputs) for name in batch)
    return tuple(_compare(name, reference, outputs, samples, chosen) for name in names)


def judge(
    bounds: Sequence[Bound], outputs: Sequence[OutputCheck], floors: Floors | None = None
) -> tuple[BoundCheck, ...]:
    """Hold the worst output to each bound; where the original is no nearer to itself, to that."""
    return tuple(_judge(bound, outputs, floors or {}) for bound in bounds)


def _judge(bound: Bound, outputs: Sequence[OutputCheck], floors: Floors) -> BoundCheck:
    found = [_held(bound, check, floors.get(check.output)) for check in outputs]
    worst = BoundCheck(bound, 0.0, True) if not found else found[0]
    metric = judged()[bound.metric]
    for one in found[1:]:
        ahead = one.value != worst.value and metric.worse(one.value, worst.value) == one.value
        if one.passed < worst.passed or (one.passed == worst.passed and ahead):
            worst = one
    excuse = next((one.excuse for one in found if one.excuse), "")
    return replace(worst, excuse=excuse if worst.passed else "")


def _held(bound: Bound, check: OutputCheck, floor: Floor | None) -> BoundCheck:
    value = check.found.values[bound.metric]
    if judged()[bound.metric].holds(value, bound.quantity.of(1.0)):
        return BoundCheck(bound, value, True, check.output)
    if floor is not None and floor.excuses(bound.metric, value):
        return BoundCheck(bound, value, True, check.output, f"`{check.output}` {floor.reason}")
    return BoundCheck(bound, value, False, check.output)


def _compare(
    name: str,
    reference: Sequence[Mapping[str, np.ndarray]],
    outputs: Sequence[Mapping[str, np.ndarray]],
    samples: Sequence[int] | None,
    metrics: Sequence[Judged],
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
        return _numbers(name, distance(pairs, counts if samples else None, metrics), lost, notes)
    shares = [float(np.mean(_differ(want, have))) if want.size else 0.0 for want, have in pairs] + [1.0] * len(reshaped)
    changed = float(np.mean(shares)) if shares else 0.0
    unverified = "" if changed or any(want.size for want, _ in pairs) else EMPTY
    return OutputCheck(name, changed_numbers(changed, metrics), changed, notes=notes, unverified=unverified)


def _numbers(name: str, found: Distance, lost: float, notes: tuple[str, ...]) -> OutputCheck:
    """The check of an output of numbers, of which a share of the batches has another shape."""
    value, reason = found.whole, ""
    if found.varying is not None:
        value = value.worse(found.varying)
    if lost:
        value = value.reshaped(lost)
    if found.strays:
        notes = (*notes, f"{found.strays:,} of {found.size:,} values are finite on one side only, or not alike")
    if not found.size and not lost:
        reason = EMPTY
    elif found.size and not found.finite:
        reason = NOTHING_FINITE
    elif found.constant:
        reason = "is the same on all samples"
    whole = found.whole if found.varying is not None or lost else None
    return OutputCheck(name, value, None, whole, notes, found.kept, reason)


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
