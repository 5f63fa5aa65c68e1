"""Times of layers that were taken to learn from, what they are told by, and where they end."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log

import numpy as np

from qcc.compiler.measure.learned.forest import Forest, accuracy, fitted_forest
from qcc.compiler.measure.time_forms import FLOAT, Case
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked

HELD_OUT = 5  # every fifth shape judges what the others taught
FEWEST = 40  # times to learn from
OF_KIND = 6  # features of each kind


@dataclass(frozen=True)
class TimedLayer:
    """A product that was timed.

    Args:
        outputs: of the weight.
        inputs: of it.
        rows: that are multiplied.
        pointwise: it is a convolution of one point.
        stored: the format, or empty for floats.
        form: in which it is stored, with how activations are rounded; ``float`` for floats.
        bits: of the weight, all told.
        group: of weights that share a scale.
        threads: that run.
        seconds: of a run.
    """

    outputs: int
    inputs: int
    rows: int
    pointwise: bool
    stored: str
    form: str
    bits: float
    group: int
    threads: int = 1
    seconds: float = 0.0

    @classmethod
    def of(
        cls, case: Case, encoding: Encoding | None, form: str, seconds: float = 0.0, threads: int = 1
    ) -> "TimedLayer":
        """Of a case in a form."""
        shape = case.outputs, case.inputs
        plain = encoding is None or form == FLOAT
        bits = 32.0 * case.outputs * case.inputs if plain or encoding is None else float(encoding.size_bits(shape))
        group = encoding.block.of(shape)[1] if isinstance(encoding, Blocked) and not plain else case.inputs
        text = "" if plain or encoding is None else encoding.text
        told = FLOAT if plain else form
        return cls(*shape, case.rows, case.pointwise, text, told, bits, group, threads, seconds)

    @property
    def kind(self) -> tuple[str, str, bool]:
        """What times can only be compared within."""
        return self.stored, self.form, self.pointwise

    @property
    def sizes(self) -> tuple[float, float, float, float]:
        """Logarithms of outputs, inputs, rows and threads."""
        return log(self.outputs), log(self.inputs), log(self.rows), log(self.threads)


class LearnedTimes:
    """What a forest says of layers that were not timed, within what it has learned from.

    Args:
        layers: that were.
    """

    def __init__(self, layers: Sequence[TimedLayer]) -> None:
        self._kinds = {kind: at for at, kind in enumerate(dict.fromkeys(one.kind for one in layers))}
        self._ends: dict[tuple[str, str, bool], tuple[np.ndarray, np.ndarray]] = {}
        for kind in self._kinds:
            sizes = np.array([one.sizes for one in layers if one.kind == kind])
            self._ends[kind] = sizes.min(0) - 1e-9, sizes.max(0) + 1e-9
        self._forest: Forest = fitted_forest(self._features(layers), np.log([one.seconds for one in layers]))

    def knows(self, layer: TimedLayer) -> bool:
        """A layer lies within what was learned from: its kind was timed, at sizes on both sides of its own."""
        if layer.kind not in self._ends:
            return False
        low, high = self._ends[layer.kind]
        return bool(np.all(low <= layer.sizes) and np.all(layer.sizes <= high))

    def seconds(self, layers: Sequence[TimedLayer]) -> np.ndarray:
        """What they take."""
        found: np.ndarray = np.exp(self._forest(self._features(layers)))
        return found

    def _features(self, layers: Sequence[TimedLayer]) -> np.ndarray:
        """Of shape, bits, work and threads, with what is told apart by kind: more work gains more by threads."""
        rows = []
        for one in layers:
            outputs, inputs, count, threads = one.sizes
            work, stored = outputs + inputs + count, log(one.bits)
            moved = log(one.bits / 8 + 4.0 * one.rows * (one.inputs + one.outputs))
            of_kind = np.zeros(OF_KIND * len(self._kinds))
            at = self._kinds[one.kind]
            of_kind[OF_KIND * at : OF_KIND * (at + 1)] = 1.0, *one.sizes, threads * work
            rows.append([*one.sizes, work, work - threads, stored, moved, log(one.group), *of_kind])
        return np.array(rows)


@dataclass(frozen=True)
class Judgement:
    """How well what some shapes teach foretells others.

    Args:
        score: R2 of the logarithms of times held out.
        error: the median of their relative errors.
        held: how many there were.
    """

    score: float
    error: float
    held: int


def judged(layers: Sequence[TimedLayer]) -> dict[int, Judgement]:
    """By number of threads; a shape is held out on all of them."""
    shapes = list(dict.fromkeys((one.outputs, one.inputs, one.rows, one.pointwise) for one in layers))
    order = np.random.default_rng(0).permutation(len(shapes))
    out = {shapes[at] for at in order[::HELD_OUT]}
    held = [one for one in layers if (one.outputs, one.inputs, one.rows, one.pointwise) in out]
    learned = LearnedTimes([one for one in layers if one not in held])
    found: dict[int, Judgement] = {}
    for threads in sorted({one.threads for one in layers}):
        judge = [one for one in held if one.threads == threads and learned.knows(one)]
        found[threads] = Judgement(*accuracy(*_logarithms(learned, judge)), len(judge))
    return found


def _logarithms(learned: LearnedTimes, layers: Sequence[TimedLayer]) -> tuple[np.ndarray, np.ndarray]:
    """Of what is foretold and what was taken."""
    return np.log(learned.seconds(layers)), np.log([one.seconds for one in layers])


def as_rows(layers: Sequence[TimedLayer]) -> list[dict[str, object]]:
    """As plain data."""
    return [asdict(one) for one in layers]


def from_rows(found: object) -> list[TimedLayer]:
    """What plain data says; nothing where it is not as it was written."""
    if not isinstance(found, list):
        return []
    try:
        layers = [TimedLayer(**one) for one in found]
        return [one for one in layers if one.seconds > 0 and min(one.outputs, one.inputs, one.rows, one.group) > 0]
    except (TypeError, ValueError):
        return []
