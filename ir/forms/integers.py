"""The runtime's own product of integers, of a weight and values that are encoded as such.

From a policy's ``activations = ...`` to the file:

1. `qcc.compiler.plan.activations` gives the weight's `Encode` action the `Activations`, and the first form that
   ``rounds`` and takes the weight so: a kernel's where some are made, else this one.
2. `places` says which values around the weight's layers the form needs encoded. `Encode` asks the `Activations` for
   the `EncodedValue` of what was seen there, and `Graph.encode_value` writes it: the graph then computes with rounded
   values, whatever the weight is stored as.
3. A layer knows how what it reads is encoded (`Layer.rounded`), and `Form.refuses` which of that it takes.
4. The adapter's module of the form's name gives each layer the weight's codes behind a ``DequantizeLinear``. That is
   all where the runtime finds integers in the op as it stands; around a product of matrices it takes the whole numbers
   from before they are decoded, and multiplies behind by what is left of the step: here the step of a token, and for
   kernels nothing, since one step for all is an input of theirs.
"""

from collections.abc import Collection
from typing import ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding, MatrixShape
from qcc.ir.encoding.blocked import Blocked, integers
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.value import DYNAMIC_INT8, EncodedValue, ValueEncoding
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Weight
from qcc.ir.kernel.op import LONGEST

GRIDS = tuple(map(IntGrid, range(2, 9)))
EXACT, WHOLE = GRIDS[-2:]  # of which two products with a byte fit 16 bits, or do not
MOST_ADDED = LONGEST // 2  # inputs, so that a bias of 31 bits can be added to the sum of their products
_NAMES = {"linear": "linear layers", "conv": "convolutions"}
LARGEST_BIAS = 2.0**30  # in the integers of the sum that it is added to: the sum itself takes as much
SMALLEST_SCALE = 2.0**-120  # of a sum: the next smaller ones lose digits
NARROWED = "int7 channel: products of 8 bits saturate on processors without VNNI"


class IntegersForm(Form):
    """``x @ W  -->  DequantizeLinear(QuantizeLinear(x, step)) @ DequantizeLinear(codes, scale)``; and convolutions.

    The runtime makes that one product of integers, of a convolution where what it makes is rounded, too. With a step a
    token ``x`` is divided by it before, and the product multiplied by it. Codes of
    7 and 8 bits lie in bytes; those of fewer are packed, and become bytes when a session starts.
    """

    name: ClassVar[str] = "integers"
    says: ClassVar[str] = "multiplied as integers by the runtime"
    explains: ClassVar[str] = (
        "what is multiplied is rounded to int8, and the runtime multiplies integers: the weight stays in bytes."
    )
    node_bytes: ClassVar[int] = 520
    packed: ClassVar[bool] = True
    rounds: ClassVar[bool] = True
    takes_zeros: ClassVar[bool] = True
    chains: ClassVar[bool] = True

    def _refuses(self, weight: Weight, encoding: Encoding) -> str:
        if None in weight.reads:
            return "the runtime multiplies integers only where activations are rounded"
        reason = _refuses_convolution(weight) if self.rounds_results(weight) else ""
        if reason := reason or refuses_integers(weight, encoding, ("linear", "conv")):
            return reason
        if not all(one and (one.in_bytes or _own_step(one)) for one in weight.reads):
            return "the runtime multiplies bytes with one step for all, or a token's own with its zero in the middle"
        found = integers(encoding)
        if found is None or found.grid not in GRIDS:
            return f"without a kernel that takes integers that are symmetric around zero, not {encoding.text}"
        return ""

    def rounds_results(self, weight: Weight) -> bool:
        """Of a convolution: the runtime has none from integers to floats."""
        return weight.kinds == {"conv"}

    def added(self, weight: Weight, encoded: Encoded, bias: np.ndarray, read: EncodedValue) -> np.ndarray:
        """Of a convolution: in the integers that are added up."""
        if not self.rounds_results(weight) or read.step is None:
            return bias
        scale = spread_scales(encoded)
        numbers = np.repeat(bias.reshape(-1).astype(np.float64), len(scale) // bias.size)
        whole, steps = whole_bias(numbers, widened(scale, numbers, float(read.step)), float(read.step))
        found: np.ndarray = (whole * steps)[:: len(scale) // bias.size].reshape(bias.shape).astype(bias.dtype)
        return found

    def everywhere(self, encoding: Encoding) -> Encoding:
        """In 7 bits: what the runtime multiplies exactly on every processor in the place of 8."""
        found = integers(encoding)
        return encoding if found is None or found.grid != WHOLE else Blocked(EXACT, found.block, found.scale)

    def note(self, encoding: Encoding) -> str:
        """Of 7 bits."""
        found = integers(encoding)
        return NARROWED if found is not None and found.grid == EXACT else ""

    def stored_as(self, encoding: Encoding) -> Encoding:
        """With scales of float32; those of 7 bits in bytes, which a runtime multiplies as they lie."""
        found = integers(encoding)
        if found is None:
            return encoding
        return Blocked(WHOLE if found.grid == EXACT else found.grid, found.block, "fp32")


def spread(encoded: Encoded) -> int:
    """How far apart its numbers are laid: a bias is one of the sums of products, and rounded as finely as they are."""
    found = integers(encoded.encoding)
    assert found is not None and isinstance(found.grid, IntGrid)
    return max(EXACT.levels // found.grid.levels, 1)


def spread_scales(encoded: Encoded) -> np.ndarray:
    """The scales of the channels, float64, for numbers that are laid apart."""
    found: np.ndarray = encoded.scales.scale.reshape(-1).astype(np.float64) / spread(encoded)
    return found


def widened(scale: np.ndarray, bias: np.ndarray, step: float) -> np.ndarray:
    """Scales ``[out]`` under which a bias can be added up in 31 bits."""
    least = np.maximum(np.abs(bias) / LARGEST_BIAS, SMALLEST_SCALE) / step
    return np.where(np.abs(scale) < least, least, scale)


def whole_bias(bias: np.ndarray, scale: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """A bias ``[out]`` in the integers of its sums, and what one of them is, float32."""
    steps = (scale.astype(np.float32) * np.float32(step)).astype(np.float32)
    return np.rint(bias / steps.astype(np.float64)).astype(np.int32), steps


def _refuses_convolution(weight: Weight) -> str:
    """Why the runtime has no convolution of integers for a weight; empty if it has."""
    if any(one is not None and one.float_tokens for one in weight.reads):
        return "what convolutions read has no first token"
    if not all(one and one.in_bytes and not one.centred for one in weight.reads) or len(weight.reads) > 1:
        return "convolutions take one step that is known before, as in `activations = static`"
    if len({layer.function == "conv_transpose" for layer in weight.layers}) > 1:
        return "a convolution and a transposed one share it, as two matrices"
    if not all(layer.input for layer in weight.layers):
        return "it is read in a branch or a loop, where nothing is rounded"
    return f"that takes up to {MOST_ADDED} inputs" if weight.shape[1] > MOST_ADDED else ""


def one_scale(encoding: Encoding, shape: MatrixShape) -> bool:
    """Codes are integers, and those of an output have one scale; of tiles that are stored alone, those in one."""
    found, columns = integers(encoding), shape[1]
    if encoding.tile is not None:
        (inner,), columns = encoding.within, encoding.tile[1]
        found, shape = integers(inner), (1, encoding.tile[0] * columns)
    return found is not None and found.block.rows == 1 and found.block.of(shape)[1] % columns == 0


def refuses_integers(weight: Weight, encoding: Encoding, kinds: Collection[str] = ("linear",)) -> str:
    """Why no product of integers, the runtime's or a kernel's, takes a weight whose layers round; empty if one does."""
    if len(weight.kinds) > 1 or not weight.kinds <= {*kinds}:
        return f"only those of {' and '.join(_NAMES[kind] for kind in kinds)} are"
    if weight.dtype != "float32":
        return f"that takes float32, and the layers compute in {weight.dtype}"
    if weight.kinds == {"linear"} and not all(layer.form_free for layer in weight.layers):
        return "the weight is read in a way that no product of integers takes"
    if not one_scale(encoding, weight.shape):
        return f"that takes weights with one scale a channel, as in `int8 channel`, not {encoding.text}"
    return f"that takes up to {LONGEST} inputs" if weight.shape[1] > LONGEST else ""


def _own_step(read: ValueEncoding) -> bool:
    """A token of what is read has its own, in bytes."""
    return read.rest == DYNAMIC_INT8 or (read.by_position and not read.imitates and not read.refuses)


INTEGERS = IntegersForm()
