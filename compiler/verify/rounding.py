"""What rounding alone does to a model: its outputs when inputs and weights move by the last digit of their type."""

from collections.abc import Iterable, Iterator

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.generate import Batch
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.in_pieces import run_each

MOVED_WEIGHTS = 1 << 25  # numbers, in the order in which they are used; the inputs move too
SEED = 0
MANTISSA = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}  # bits


class Jitter:
    """Runs a graph as it is and moved; the same feeds are moved alike each time.

    Raises:
        ModelError: the graph does not run.
    """

    def __init__(self, graph: Graph) -> None:
        constants = dict(_constants(graph))
        names = tuple(value.name for value in graph.inputs)
        outputs = tuple(value.name for value in graph.outputs)
        self._runner: Runner = graph.runner(names, outputs, tuple(constants))
        rng = np.random.default_rng(SEED)
        self._still = constants
        self._moved = {name: _moved(array, rng) for name, array in constants.items()}

    def pairs(self, batches: Iterable[Batch]) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """The outputs of each batch, still and moved."""
        feeds: list[Batch] = []
        for batch in batches:
            rng = np.random.default_rng(SEED)
            moved = {name: _moved(feed, rng) for name, feed in batch.items()}
            feeds += [{**batch, **self._still}, {**moved, **self._moved}]
        found = [flattened(outputs) for outputs in run_each(self._runner, feeds)]
        yield from zip(found[::2], found[1::2], strict=True)


def _constants(graph: Graph) -> Iterator[tuple[str, np.ndarray]]:
    left = MOVED_WEIGHTS
    for weight in graph.weights():
        array = graph.constant(weight.constant)
        if array is None or array.size > left or weight.constant in {value.name for value in graph.outputs}:
            continue
        left -= array.size
        yield weight.constant, array


def _moved(feed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every number a step up or down; whole numbers stay."""
    if not isinstance(feed, np.ndarray) or feed.dtype.kind not in "fV":
        return feed
    step = 2.0 ** -MANTISSA[feed.dtype.name] if feed.dtype.name in MANTISSA else 0.0
    signs = 2.0 * rng.integers(0, 2, feed.shape, dtype=np.int8) - 1
    return np.asarray((feed.astype(np.float64) * (1 + step * signs)).astype(feed.dtype))
