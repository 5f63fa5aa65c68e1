"""The runtime's own convolution of integers whose weights keep all 8 bits on every processor."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import integers
from qcc.ir.forms.integers import WHOLE, IntegersForm
from qcc.ir.graph.ops import Weight


class BytesForm(IntegersForm):
    """``conv(x, W)  -->  conv(DequantizeLinear(QuantizeLinear(x, step)), DequantizeLinear(codes, scale))``.

    The codes are bytes without a sign, whose products the runtime widens before it adds them; those of depthwise
    convolutions, which it widens in any case, have one.
    """

    name: ClassVar[str] = "bytes"
    says: ClassVar[str] = "multiplied as whole bytes by the runtime"
    explains: ClassVar[str] = (
        "what is multiplied is rounded to int8, and the runtime multiplies whole bytes: exact on every processor, but "
        "slower than codes of 7 bits where it is no depthwise convolution."
    )

    def _refuses(self, weight: Weight, encoding: Encoding) -> str:
        if not self.rounds_results(weight):
            return "only convolutions are multiplied as whole bytes"
        found = integers(encoding)
        narrow = found is None or found.grid != WHOLE
        return super()._refuses(weight, encoding) or ("codes of fewer bits have a sign" if narrow else "")

    def everywhere(self, encoding: Encoding) -> Encoding:
        """As it is."""
        return encoding


BYTES = BytesForm()
