"""Translation validation: a graph before and after a pass that promises the same function, run on the same inputs."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Samples, generate
from qcc.compiler.verify.rounding import Jitter
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner

TOLERANCE = 1e-4  # of an output's largest value; float32 noise is a thousandth of it in a layer, and grows with depth
STEPS = 32  # a type too coarse for that tolerance may err by so many of its steps
OWN = 10.0  # times what the graph's own outputs do when its inputs and weights move by their last digit
RANDOM = 2.0  # times what they do from run to run
CHANGED = 0.01  # of an output's whole numbers: where two are about equal, noise tips which one is the larger
SAMPLES = 4  # of random data, and as many of calibration data
LEAST, PATIENCE_S = 2, 2.0  # samples, however long they take; seconds of all cores, after which none is added
OUTPUT_BYTES = 1 << 25  # of each that are held
SEED = 0
NARROW = {"float16": 2.0**-10, "bfloat16": 2.0**-7}  # the step above one

Outputs = list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Difference:
    """How far outputs are from what they should be.

    ``error`` is the largest error over the largest value, the worst of all outputs and samples beside the ``bound`` of
    its output; ``changed`` the largest share of an output's whole numbers or texts that differ. ``excess`` says that
    too much does. ``fault`` is why the graph does not run.
    """

    error: float = 0.0
    changed: float = 0.0
    excess: bool = False
    fault: str = ""
    bound: float = TOLERANCE


class Trial:
    """Inputs with what a graph makes of them: random ones, and calibration data where there is any.

    Random data that the model refuses is left out if there is other data. ``bounds`` is the relative error allowed of
    each output: the tolerance, or more where the graph itself is less sure of it, by rounding or by chance; ``moving``
    are the outputs whose whole numbers are not sure either.

    Raises:
        ModelError: the model runs on no data.
    """

    def __init__(self, graph: Graph, data: Samples) -> None:
        self.bound = tolerance(graph)
        self.bounds: dict[str, float] = {}
        self.moving: set[str] = set()
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
        self._find_bounds(runner, graph)

    def _find_bounds(self, runner: Runner, graph: Graph) -> None:
        """See how sure the graph is of its own outputs."""
        self.bounds = dict.fromkeys((name for batch in self.outputs for name in batch), self.bound)
        self._loosen([flattened(runner(batch)) for batch in self.feeds], self.outputs, RANDOM)
        try:
            pairs = list(Jitter(graph).pairs(self.feeds))
        except ModelError:
            return  # weights that a subgraph reads cannot be moved
        self._loosen([moved for _, moved in pairs], [still for still, _ in pairs], OWN)

    def _loosen(self, outputs: Outputs, wanted: Outputs, factor: float) -> None:
        for name in self.bounds:
            want, have = ([{name: batch[name]} for batch in part if name in batch] for part in (wanted, outputs))
            if len(want) != len(have):
                self.bounds[name] = np.inf
                continue
            found = compare(want, have)
            self.bounds[name] = max(self.bounds[name], factor * found.error)
            if found.excess:
                self.moving.add(name)

    def _hold(self, runner: Runner, samples: Samples) -> None:
        held, start = 0, time.process_time()
        for done, batch in enumerate(samples.parts(1)):
            if held > OUTPUT_BYTES or (done >= LEAST and time.process_time() - start > PATIENCE_S):
                return
            outputs = flattened(runner(batch))
            self.feeds.append(batch)
            self.outputs.append(outputs)
            held += sum(array.nbytes for array in outputs.values())

    def run(self, graph: Graph) -> tuple[Outputs, Difference]:
        """The outputs of another graph, and how far they are from those held."""
        try:
            runner = _runner(graph)
            outputs = [flattened(runner(batch)) for batch in self.feeds]
        except ModelError as error:
            return [], Difference(error=np.inf, fault=error.message)
        return outputs, self.difference(outputs)

    def difference(self, outputs: Outputs) -> Difference:
        """How far outputs are from those held."""
        return compare(self.outputs, outputs, self.bounds, self.moving)

    def holds(self, difference: Difference) -> bool:
        """A difference is within the tolerance."""
        return difference.error <= difference.bound and not difference.excess and not difference.fault


def tolerance(graph: Graph) -> float:
    """The relative error allowed: that of float32, or what the narrowest type of the graph's numbers can tell apart."""
    values = {value.dtype for value in (*graph.inputs, *graph.outputs)}
    names = values | {weight.dtype for weight in graph.weights()}
    return max([TOLERANCE, *(STEPS * step for name, step in NARROW.items() if name in names)])


def compare(
    wanted: Sequence[Mapping[str, np.ndarray]],
    got: Sequence[Mapping[str, np.ndarray]],
    bounds: Mapping[str, float] | None = None,
    moving: Collection[str] = (),
) -> Difference:
    """The worst difference of all outputs and samples.

    Args:
        wanted: outputs, batch by batch.
        got: others.
        bounds: the relative error allowed of each output, by which the worst is told.
        moving: outputs whose whole numbers may all change.
    """
    found, changed, excess = Difference(), 0.0, False
    for name, want, have in _pairs(wanted, got):
        if have is None:
            changed, excess = 1.0, excess or name not in moving
            continue
        if want.dtype.kind in "fcV":
            one = Difference(relative_error(want, have), bound=(bounds or {}).get(name, TOLERANCE))
            found = max(found, one, key=lambda two: two.error / two.bound if two.error < np.inf else two.error)
            continue
        count = int(np.sum(want != have)) if want.shape == have.shape else want.size or 1
        changed = max(changed, count / max(want.size, 1))
        many = count > max(1, CHANGED * want.size) or want.shape != have.shape
        excess = excess or (many and name not in moving)
    return replace(found, changed=changed, excess=excess)


def relative_error(wanted: np.ndarray, got: np.ndarray) -> float:
    """The largest error over the largest value, or the error itself where all values are zero.

    What is not finite must be the same on both sides.
    """
    if wanted.shape != got.shape:
        return float(np.inf)
    if wanted.dtype.kind == "c":
        wanted, got = (np.stack([one.real, one.imag], axis=-1) for one in (wanted, got))
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
) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    for want, have in zip(wanted, got, strict=True):
        yield from ((name, array, have.get(name)) for name, array in want.items())


def _runner(graph: Graph) -> Runner:
    return graph.runner(tuple(value.name for value in graph.inputs), tuple(value.name for value in graph.outputs))
