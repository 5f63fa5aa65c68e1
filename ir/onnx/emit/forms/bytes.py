"""The form ``bytes``."""

from qcc.ir.graph.ops import Layer
from qcc.ir.onnx.emit.forms.integers import IntegersWriter


class BytesWriter(IntegersWriter):
    """Writes weights of 8 bits without a sign, but for depthwise convolutions."""

    def _signed(self, layer: Layer) -> bool:
        return layer.groups == self._encoded.shape[0] and self._depth(layer) == 1
