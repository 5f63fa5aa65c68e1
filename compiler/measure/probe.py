"""Running the rest of a graph after changed weights, beside the unchanged one."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from qcc.compiler.calibrate.find_masks import find_masks
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.segments import Chain, Values
from qcc.compiler.measure.tally import NOISE, Tally, output_noise
from qcc.compiler.metrics.metric import Additive
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Feeds

TOGETHER = 8  # samples that run at once: between two looks at how sure the loss is
SURE = 0.1  # of a loss: its standard error from which on no more samples are run; candidates differ by factors


@dataclass(frozen=True)
class _Held:
    """A batch: the values alive before each piece, and which rows of the outputs count."""

    size: int
    states: list[Values]
    sight: Mapping[str, Array]


class Probe:
    """Runs the rest of a graph after a changed weight, and compares its outputs with the unchanged ones.

    Samples are run a few at a time, until the loss is sure enough or all have been.
    """

    def __init__(self, graph: Graph, chain: Chain, samples: Samples, metric: Additive = NOISE) -> None:
        self.chain, self._metric = chain, metric
        self._names = tuple(value.name for value in graph.outputs)
        hiding = find_masks(graph.inputs, self._outputs, samples)
        self._held: list[_Held] = []
        for batch in map(hiding.cropped, samples.parts(TOGETHER)):
            states = chain.states(batch)
            found = hiding.sight(self._outputs, batch, as_arrays(self._named(states[-1]))) if hiding.masks else {}
            self._held.append(_Held(samples.size(batch), states, found))

    def loss(self, overrides: Mapping[str, np.ndarray], chain: Chain | None = None) -> float:
        """Noise over signal at the outputs when constants are replaced, maybe in a chain that differs behind them."""
        return self.tally(overrides, chain).loss

    def tally(self, overrides: Mapping[str, np.ndarray], chain: Chain | None = None, sure: float = SURE) -> Tally:
        """Noise and signal at the outputs when constants are replaced, of as many samples as it takes to be so sure."""
        start = min(self.chain.first_reader(constant) for constant in overrides)
        found = Tally()
        for held in self._held:
            outputs = self._named((chain or self.chain).outputs(start, held.states[start], overrides))
            found += output_noise(outputs, self._named(held.states[-1]), held.size, held.sight, self._metric)
            if 0 < found.error <= sure * found.loss:
                break
        return found

    def elsewhere(self, run: Callable[[Feeds], Mapping[str, Array]], outputs: Collection[str] = ()) -> float:
        """Noise over signal of another run of the same samples, averaged over all outputs.

        Args:
            run: gives what the graph gives.
            outputs: that alone can differ; others lose nothing. All by default.
        """
        found = Tally()
        for held in self._held:
            wanted = self._named(held.states[-1])
            made = run(held.states[0])
            made = {name: made[name] if not outputs or name in outputs else wanted[name] for name in wanted}
            found += output_noise(made, wanted, held.size, held.sight, self._metric)
            if 0 < found.error <= SURE * found.loss:
                break
        return found.loss

    def _outputs(self, feeds: Feeds) -> dict[str, np.ndarray]:
        return as_arrays(self._named(self.chain.states(feeds)[-1]))

    def _named(self, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: state[name] for name in self._names}


def as_arrays(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without sequences."""
    return {name: array for name, array in values.items() if isinstance(array, np.ndarray)}
