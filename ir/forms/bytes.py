"""The runtime's own product of integers whose weights keep all 8 bits on every processor."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import integers
from qcc.ir.encoding.value import DYNAMIC_INT8
from qcc.ir.forms.integers import WHOLE, IntegersForm
from qcc.ir.graph.ops import Weight


class BytesForm(IntegersForm):
    """``op(x, W)  -->  op(DequantizeLinear(QuantizeLinear(x, step)), DequantizeLinear(codes, scale))``.

    ``op`` is a convolution or a product of matrices. The codes are bytes without a sign, whose products the runtime
    widens before it adds them; those of depthwise convolutions, which it widens in any case, have one.
    """

    name: ClassVar[str] = "bytes"
    says: ClassVar[str] = "multiplied as whole bytes by the runtime"
    explains: ClassVar[str] = (
        "what is multiplied is rounded to int8, and the runtime multiplies whole bytes: exact on every processor, but "
        "slower than codes of 7 bits where it is no depthwise convolution."
    )

    def _refuses(self, weight: Weight, encoding: Encoding) -> str:
        found = integers(encoding)
        narrow = found is None or found.grid != WHOLE
        reason = super()._refuses(weight, encoding) or ("codes of fewer bits have a sign" if narrow else "")
        if not reason and DYNAMIC_INT8 in weight.reads:
            reason = "whole bytes are multiplied by one step for all, as in `activations = static`"
        return reason

    def everywhere(self, encoding: Encoding) -> Encoding:
        """As it is."""
        return encoding


BYTES = BytesForm()
