"""Translation validation: a graph before and after a pass that promises the same function, run on the same inputs."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.compiler.generate import Batch
from qcc.compiler.samples import Samples, generate
from qcc.ir.errors import ModelError
from qcc.ir.graph import Graph, Runner

TOLERANCE = 1e-4  # of an output's largest value; float32 noise is a thousandth of it in a layer, and grows with depth
STEPS = 32  # a type too coarse for that tolerance may err by so many of its steps
CHANGED = 0.01  # of an output's whole numbers: where two are about equal, noise tips which one is the larger
SAMPLES = 4  # of random data, and as many of calibration data
OUTPUT_BYTES = 1 << 25  # of each that are held
SEED = 0
NARROW = {"float16": 2.0**-10, "bfloat16": 2.0**-7}  # the step above one

Outputs = list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Difference:
    """How far outputs are from what they should be.

    ``error`` is the largest error over the largest value, the worst of all outputs and samples; ``changed`` the largest
    share of an output's whole numbers or texts that differ. ``excess`` says that too many do. ``fault`` is why the
    graph does not run.
    """

    error: float = 0.0
    changed: float = 0.0
    excess: bool = False
    fault: str = ""


class Trial:
    """Inputs with what a graph makes of them: random ones, and calibration data where there is any.

    Random data that the model refuses is left out if there is other data.

    Raises:
        ModelError: the model runs on no data.
    """

    def __init__(self, graph: Graph, data: Samples) -> None:
        self.bound = tolerance(graph)
        self.feeds: list[Batch] = []
        self.outputs: Outputs = []
        runner = _runner(graph)
        given = data.origin != "generated"
        try:
            self._hold(runner, generate(graph, SAMPLES, SEED, recipe=data.recipe))
        except ModelError:
            if not given:
                raise
            self.feeds, self.outputs = [], []
        if given:
            self._hold(runner, data.first(SAMPLES))

    def _hold(self, runner: Runner, samples: Samples) -> None:
        held = 0
        for batch in samples.parts(1):
            if held > OUTPUT_BYTES:
                return
            outputs = runner(batch)
            self.feeds.append(batch)
            self.outputs.append(outputs)
            held += sum(array.nbytes for array in outputs.values())

    def run(self, graph: Graph) -> tuple[Outputs, Difference]:
        """The outputs of another graph, and how far they are from those held."""
        try:
            runner = _runner(graph)
            outputs = [runner(batch) for batch in self.feeds]
        except ModelError as error:
            return [], Difference(error=np.inf, fault=error.message)
        return outputs, compare(self.outputs, outputs)

    def holds(self, difference: Difference) -> bool:
        """A difference is within the tolerance."""
        return difference.error <= self.bound and not difference.excess


def tolerance(graph: Graph) -> float:
    """The relative error allowed: that of float32, or what the narrowest type of the graph's numbers can tell apart."""
    values = {value.dtype for value in (*graph.inputs, *graph.outputs)}
    names = values | {weight.dtype for weight in graph.weights()}
    return max([TOLERANCE, *(STEPS * step for name, step in NARROW.items() if name in names)])


def compare(wanted: Sequence[Mapping[str, np.ndarray]], got: Sequence[Mapping[str, np.ndarray]]) -> Difference:
    """The worst difference of all outputs and samples."""
    error, changed, excess = 0.0, 0.0, False
    for want, have in _pairs(wanted, got):
        if want.dtype.kind in "fV":
            error = max(error, relative_error(want, have))
            continue
        count = int(np.sum(want != have)) if want.shape == have.shape else want.size or 1
        changed = max(changed, count / max(want.size, 1))
        excess = excess or count > max(1, CHANGED * want.size) or want.shape != have.shape
    return Difference(error, changed, excess)


def relative_error(wanted: np.ndarray, got: np.ndarray) -> float:
    """The largest error over the largest value, or the error itself where all values are zero.

    What is not finite must be the same on both sides.
    """
    if wanted.shape != got.shape:
        return float(np.inf)
    if wanted.dtype not in (np.float32, np.float64):
        wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(wanted)
    if not np.array_equal(wanted[~finite], got[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return float(np.inf)
    with np.errstate(invalid="ignore"):
        error = float(np.max(np.abs(got - wanted), where=finite, initial=0))
    largest = float(np.max(np.abs(wanted), where=finite, initial=0))
    return error / (largest or 1.0)


def first_guilty(subjects: Sequence[str], fails: Callable[[Collection[str]], bool]) -> str:
    """The first of some sites that does harm after those before it, which do none.

    Args:
        subjects: all together they do harm.
        fails: whether these alone, in their order, do.
    """
    sound, guilty = 0, len(subjects)
    while guilty - sound > 1:
        middle = (sound + guilty) // 2
        if fails(frozenset(subjects[:middle])):
            guilty = middle
        else:
            sound = middle
    return subjects[guilty - 1]


def _pairs(
    wanted: Sequence[Mapping[str, np.ndarray]], got: Sequence[Mapping[str, np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for want, have in zip(wanted, got, strict=True):
        yield from ((array, have[name]) for name, array in want.items())


def _runner(graph: Graph) -> Runner:
    return graph.runner(tuple(value.name for value in graph.inputs), tuple(value.name for value in graph.outputs))
