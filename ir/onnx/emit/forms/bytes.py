"""The form ``bytes``."""

import numpy as np

from qcc.ir.graph.ops import Layer
from qcc.ir.onnx.emit.forms.integers import IntegersWriter


class BytesWriter(IntegersWriter):
    """Writes weights of 8 bits without a sign, but for depthwise convolutions."""

    def _signed(self, layer: Layer, numbers: np.ndarray) -> bool:
        return bool(layer.kernel) and layer.groups == len(numbers) and numbers.shape[1] == 1
