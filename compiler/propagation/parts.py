"""The parts of the error of one layer's result, and what makes its input hard to round."""

from dataclasses import dataclass

import numpy as np

from qcc.ir.graph.ops import Array

SMALL = 1e-30  # of a power, that nothing is over


@dataclass(frozen=True)
class LayerError:
    """Of one layer, on all samples; powers over that of its float result.

    Args:
        layer: its name.
        weight: that it reads.
        measured: of what it makes in the compressed model, which ran as a whole.
        own: of that, what its own rounding makes of the float input.
        carried: what the float layer makes of the errors before it.
        interacting: what its rounding makes of those errors.
        alone: what its own rounding makes, whatever the errors before it: what it loses if it alone is stored so.
        gain: how much of the input's noise over signal is in the result, where the layer is float.
        peak: largest over median magnitude of a row that it reads, the mean over rows.
        kurtosis: of the numbers that it reads; 3 for those of a normal distribution.
        foretold: what the weight alone is foretold to lose at the outputs; None where it stands in several blocks.
        loss: what that is as measured; None where it was not.
    """

    layer: str
    weight: str
    measured: float
    own: float
    carried: float
    interacting: float
    alone: float
    gain: float
    peak: float
    kurtosis: float
    foretold: float | None = None
    loss: float | None = None

    @property
    def gap(self) -> float:
        """By how much the parts together are off what was measured, relative."""
        return abs(self.own + self.carried + self.interacting - self.measured) / max(self.measured, SMALL)


class PartSums:
    """Sums over samples from which a `LayerError` is made."""

    def __init__(self) -> None:
        self._power = dict.fromkeys(("signal", "error", "own", "carried", "interacting", "alone", "through"), 0.0)
        self._input = dict.fromkeys(("signal", "noise"), 0.0)
        self._moments = np.zeros(4)
        self._peaks, self._rows, self._count = 0.0, 0, 0

    def add(self, x: Array, now: Array, results: tuple[Array, Array, Array, Array], measured: Array) -> None:
        """More samples.

        Args:
            x: what the layer reads in the float model.
            now: what it reads in the compressed one.
            results: of the float layer on both, and of the compressed one on both.
            measured: what it makes in the compressed model.
        """
        fine, through, rounded, both = (one.astype(np.float64).reshape(-1) for one in results)
        error = measured.astype(np.float64).reshape(-1) - fine
        own, carried = rounded - fine, through - fine
        interacting = (both - rounded) - carried
        power = self._power
        power["signal"] += float(fine @ fine)
        power["error"] += float(error @ error)
        power["alone"] += float(own @ own)
        power["through"] += float(carried @ carried)
        for name, part in (("own", own), ("carried", carried), ("interacting", interacting)):
            power[name] += float(part @ error)
        fed = x.astype(np.float64).reshape(-1)
        noise = now.astype(np.float64).reshape(-1) - fed
        self._input["signal"] += float(fed @ fed)
        self._input["noise"] += float(noise @ noise)
        self._moments += [float((fed**order).sum()) for order in range(1, 5)]
        rows = np.abs(x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x[None])
        middle = np.median(rows, axis=1)
        known = middle > 0
        self._peaks += float((rows.max(1)[known] / middle[known]).sum())
        self._rows += int(known.sum())
        self._count += fed.size

    def told(self, layer: str, weight: str) -> LayerError:
        """What they come to."""
        signal = max(self._power["signal"], SMALL)
        shares = {name: value / signal for name, value in self._power.items()}
        given = self._input["noise"] / max(self._input["signal"], SMALL)
        return LayerError(
            layer,
            weight,
            shares["error"],
            shares["own"],
            shares["carried"],
            shares["interacting"],
            shares["alone"],
            shares["through"] / given if given > SMALL else 0.0,
            self._peaks / max(self._rows, 1),
            self._kurtosis(),
        )

    def _kurtosis(self) -> float:
        first, second, third, fourth = self._moments / max(self._count, 1)
        variance = second - first**2
        central = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        return float(central / max(variance**2, SMALL))
