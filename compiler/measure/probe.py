"""Running the rest of a graph after changed weights, beside the unchanged one."""

from collections.abc import Mapping

import numpy as np

from qcc.compiler.calibrate import masks
from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.segments import Chain
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Feeds


class Probe:
    """Runs the rest of a graph after a changed weight, and compares its outputs with the unchanged ones."""

    def __init__(self, graph: Graph, chain: Chain, samples: Samples) -> None:
        self.chain = chain
        self.states = [self.chain.states(batch) for batch in samples.batches]
        self._names = tuple(value.name for value in graph.outputs)
        hiding = masks.find(graph.inputs, self._outputs, samples)
        self._sights = [
            {} if not hiding.masks else hiding.sight(self._outputs, states[0], _arrays(self._named(states[-1])))
            for states in self.states
        ]

    def loss(self, overrides: Mapping[str, np.ndarray], chain: Chain | None = None) -> float:
        """Noise over signal at the outputs when constants are replaced, maybe in a chain that differs behind them."""
        start = min(self.chain.first_reader(constant) for constant in overrides)
        total = 0.0
        for states, sights in zip(self.states, self._sights, strict=True):
            outputs = (chain or self.chain).outputs(start, states[start], overrides)
            total += noise(*(masks.seen(self._named(one), sights) for one in (outputs, states[-1])))
        return total / len(self.states)

    def _outputs(self, feeds: Feeds) -> dict[str, np.ndarray]:
        return _arrays(self._named(self.chain.states(feeds)[-1]))

    def _named(self, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: state[name] for name in self._names}


def _arrays(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without sequences."""
    return {name: array for name, array in values.items() if isinstance(array, np.ndarray)}


def noise(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> float:
    """Noise power over signal power, averaged over the outputs; for whole numbers, the share that changed."""
    ratios = []
    outputs = flattened(outputs)
    for name, wanted in flattened(reference).items():
        got = outputs.get(name)
        if got is None or got.shape != wanted.shape:
            ratios.append(1.0)
            continue
        if wanted.dtype.kind not in "fV":
            ratios.append(float(np.mean(got != wanted)) if wanted.size else 0.0)
            continue
        want64, got64 = wanted.astype(np.float64), got.astype(np.float64)
        finite = np.isfinite(want64) & np.isfinite(got64)
        want64, got64 = np.where(finite, want64, 0), np.where(finite, got64, 0)
        signal = float(np.sum(want64**2))
        ratios.append(float(np.sum((got64 - want64) ** 2)) / signal if signal else 0.0)
    return float(np.mean(ratios)) if ratios else 0.0
