"""Rounding activations by a step that each block computes for itself."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import TENSOR, group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.value import COLUMN, FEWEST_BITS, MOST_BITS, TOKEN, EncodedValue, ValueEncoding
from qcc.ir.graph.form import Form
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.contract import Between
from qcc.passes.contract.magnitudes import Magnitudes

_WHOLE = {"token": TOKEN, "channel": COLUMN, "tensor": TENSOR}


@dataclass(frozen=True)
class Blockwise(Activations):
    """Round activations to integers of any width, by a step for each block of neighbouring channels.

    A step is a power of two, by which hardware shifts, or any float; it is found as the model runs, so that no data is
    needed. What linear layers read is rounded in the graph and multiplied as floats, with weights in any format: ONNX
    Runtime has no integers of such steps, so nothing gets faster, and the file shows what a processor that has them
    would compute. The bits of a value are for it to gain. Blocks of a token do not depend on what stands beside it;
    those of a channel or of the whole tensor do.

    Args:
        size: channels that share a step, where ``by`` is ``group``; the layer's inputs must be a multiple of it.
        scale: how a step is stored: ``e8m0`` is a power of two, ``fp32`` the largest magnitude over the largest number.
        bits: of the integers.
        by: what shares a step: a ``group`` of channels of a token, a ``token``, a ``channel`` of all tokens, or the
            whole ``tensor``.

    Source: A block-wise computation of transformers, BCT, 2023 (arXiv:2304.01483), of which this is the encoding of
    values; blocks with powers of two, OCP Microscaling Formats 1.0.
    """

    keyword: ClassVar[str] = "blocks"
    when: ClassVar[Literal["static", "dynamic"]] = "dynamic"

    size: Annotated[int, Between(2, 65_536)] = 64
    scale: Literal["e8m0", "fp32"] = "e8m0"
    bits: Annotated[int, Between(FEWEST_BITS, MOST_BITS)] = 8
    by: Literal["group", "token", "channel", "tensor"] = "group"

    def encoding(self, form: Form) -> ValueEncoding:
        """The same for all layers."""
        block = _WHOLE.get(self.by) or group(self.size)
        return ValueEncoding(Blocked(IntGrid(self.bits), block, self.scale), "dynamic")

    def encoded(self, encoding: ValueEncoding, magnitudes: Magnitudes | None) -> EncodedValue:
        """The same for all values."""
        return EncodedValue(encoding)
