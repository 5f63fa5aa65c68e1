"""The runtime's own product of integers, of a weight and a value that are both encoded as such.

From a policy's ``activations = ...`` to the file:

1. `qcc.compiler.plan.activations` gives the weight's `Encode` action the `Activations`, and the first form that
   ``rounds`` and takes the weight so: a kernel's where some are made, else this one.
2. `Encode` asks the `Activations` for the `EncodedValue` of what the weight's layers were seen to read, and
   `Graph.encode_value` writes it: the graph then computes with rounded values, whatever the weight is stored as.
3. A layer knows how what it reads is encoded (`Layer.rounded`), and `Form.refuses` which of that it takes.
4. The adapter's module of the form's name takes the whole numbers from before they are decoded, and multiplies behind
   the product by what is left of the step: here the step of a token, and for kernels nothing, since one step for all
   is an input of theirs.
"""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, integers
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Weight
from qcc.ir.kernel.op import LONGEST

WHOLE, EXACT = IntGrid(8), IntGrid(7)  # of which two products with a byte do not fit 16 bits, or do
NARROWED = "int7 channel: products of 8 bits saturate on processors without VNNI"


class IntegersForm(Form):
    """``x @ W  -->  DequantizeLinear(QuantizeLinear(x, step)) @ DequantizeLinear(codes, scale)``.

    The runtime makes that one product of integers. With a step a token ``x`` is divided by it before, and the product
    multiplied by it. Codes lie in bytes: in fewer nothing is gained.
    """

    name: ClassVar[str] = "integers"
    says: ClassVar[str] = "multiplied as integers by the runtime"
    explains: ClassVar[str] = (
        "what is multiplied is rounded to int8, and the runtime multiplies integers: the weight stays in bytes."
    )
    node_bytes: ClassVar[int] = 520
    packed: ClassVar[bool] = True
    rounds: ClassVar[bool] = True

    def _refuses(self, weight: Weight, encoding: Encoding) -> str:
        if None in weight.reads:
            return "the runtime multiplies integers only where activations are rounded"
        if reason := refuses_integers(weight, encoding):
            return reason
        found = integers(encoding)
        if found is None or found.grid not in (WHOLE, EXACT):
            return f"without a kernel that takes weights in `int8 channel sym`, not {encoding.text}"
        return ""

    def everywhere(self, encoding: Encoding) -> Encoding:
        """In 7 bits: what the runtime multiplies exactly on every processor in the place of 8."""
        found = integers(encoding)
        return encoding if found is None or found.grid != WHOLE else Blocked(EXACT, found.block, found.scale)

    def note(self, encoding: Encoding) -> str:
        """Of 7 bits."""
        found = integers(encoding)
        return NARROWED if found is not None and found.grid == EXACT else ""

    def stored_as(self, encoding: Encoding) -> Encoding:
        """In bytes, with scales of float32."""
        found = integers(encoding)
        return encoding if found is None else Blocked(WHOLE, found.block, "fp32")


def refuses_integers(weight: Weight, encoding: Encoding) -> str:
    """Why no product of integers, the runtime's or a kernel's, takes a weight whose layers round; empty if one does."""
    if weight.kinds != {"linear"}:
        return "only those of linear layers are"
    if weight.dtype != "float32":
        return f"that takes float32, and the layers compute in {weight.dtype}"
    if not all(layer.form_free for layer in weight.layers):
        return "the weight is read in a way that no product of integers takes"
    found = integers(encoding)
    if found is None or found.block.rows != 1 or found.block.grid(weight.shape)[1] != 1:
        return f"that takes weights with one scale a channel, as in `int8 channel`, not {encoding.text}"
    return f"that takes up to {LONGEST} inputs" if weight.shape[1] > LONGEST else ""


INTEGERS = IntegersForm()
