"""Rounding activations by a step that calibration decides."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from qcc.ir.encoding.value import SMALLEST_STEP, STATIC_INT8, EncodedValue, ValueEncoding
from qcc.ir.errors import Refused
from qcc.passes.contract.contract import Activations, Between
from qcc.passes.contract.magnitudes import Magnitudes

LEVELS = 127
SHARES = np.geomspace(1 / 64, 1, 97)  # of the largest magnitude, that a search by squared error tries


@dataclass(frozen=True)
class Static(Activations):
    """Round activations to int8 by one step for each layer, decided when compiling.

    The layer multiplies integers, which plain ONNX Runtime does much faster than floats. One step serves all inputs, so
    it is less exact than a step a row (`dynamic`, and of kernels ``export { activations = int8 }``), and with kernels
    hardly faster than those. Give calibration data that is like what the model will see. It takes linear layers whose
    weights become ``int8 channel``, with kernels also fewer bits.

    Args:
        range: ``absmax`` reaches the largest magnitude that calibration shows, ``percentile`` leaves out a few,
            ``mse`` searches the range of least squared error.
        percentile: of the magnitudes, in percent, that a range ``percentile`` reaches.

    Source: A white paper on neural network quantization, Nagel et al. 2021 (arXiv:2106.08295), section 3.1.
    """

    encoding: ClassVar[ValueEncoding] = STATIC_INT8

    range: Literal["absmax", "percentile", "mse"] = "absmax"
    percentile: Annotated[float, Between(50, 100)] = 99.99

    def encoded(self, magnitudes: Magnitudes | None) -> EncodedValue:
        """With the step that the magnitudes show."""
        assert magnitudes is not None
        return EncodedValue(self.encoding, self.step(magnitudes))

    def step(self, magnitudes: Magnitudes) -> np.float32:
        """The range's end over 127; where all is zero, any step does."""
        if not magnitudes.finite:
            raise Refused("its activations are not finite on the calibration data", broken=True)
        top = magnitudes.largest
        if self.range == "percentile":
            top = magnitudes.quantile(self.percentile / 100)
        elif self.range == "mse":
            top *= min(SHARES, key=lambda share: _noise(magnitudes, share * magnitudes.largest))
        return np.float32(max(top / LEVELS, SMALLEST_STEP)) if top else np.float32(1)


def _noise(magnitudes: Magnitudes, top: float) -> float:
    """The expected squared error, summed: of what is cut off, of what becomes zero, and of rounding between."""
    middles, counts = magnitudes.bins()
    step = top / LEVELS
    errors = np.where(middles > top, (middles - top) ** 2, step**2 / 12)
    return float(counts @ np.where(middles < step / 2, middles**2, errors))
