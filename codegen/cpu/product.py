"""What is multiplied: products that ops share, and what a template is that makes functions for them."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from qcc.codegen.cpu.processors.processors import CpuProcessor
from qcc.codegen.target.target import Arithmetic, Template
from qcc.codegen.tir.codes import Codes, codes_of
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.op import BF16, CHUNK, Leaf, LinearOp, Tile, stored_name
from qcc.ir.kernel.sequence_op import SequenceOp

Expr = object  # of TVM, which carries no types
FLOATS = "fp32 multiply-add"
ONE = "one"  # row: the shim's word for the function
HALF, SINGLE = "fp16", "fp32"


@dataclass(frozen=True)
class KernelProduct:
    """What ops share functions: how codes are read, one scale for all inputs or by groups, a step of activations.

    Scales are floats by the time that a function reads them, of 16 bits where groups are stored so, and groups of any
    size are read by chunks. Of tiles of which some are stored alone, ``tile`` is their extents.
    """

    encoding: Leaf
    pointwise: bool = False
    static: bool = False
    tile: Tile | None = None

    @property
    def name(self) -> str:
        """How names of functions spell it."""
        if self.pointwise:
            return "conv1x1"
        return stored_name(self.encoding, self.tile) + "_static" * self.static

    @property
    def channel(self) -> bool:
        """All inputs share a scale."""
        held = self.encoding
        return isinstance(held, Blocked) and held.scale is not None and held.block == CHANNEL

    @property
    def codes(self) -> Codes:
        """How codes are read."""
        return codes_of(self.encoding)

    def codes_on(self, processor: CpuProcessor) -> Codes:
        """How codes are read, and their scales."""
        return replace(self.codes, half=self.reads_halves(processor))

    def reads_halves(self, processor: CpuProcessor) -> bool:
        """Scales are read as float16: those of groups that are stored so, where there is an instruction for it."""
        held, whole = self.encoding, self.channel or self.tile is not None
        return isinstance(held, Blocked) and not whole and held.scale == HALF and processor.widens_halves


def linear_ops(op: KernelOp) -> tuple[LinearOp, ...]:
    """The ops that a library has rows of its table for, for an op: that itself, or those that it is a sequence of."""
    if isinstance(op, SequenceOp):
        return op.members
    return (op,) if isinstance(op, LinearOp) else ()


def product_of(op: LinearOp) -> KernelProduct:
    """The product whose functions an op calls."""
    if op.pointwise:
        return KernelProduct(BF16, pointwise=True)  # their codes are decoded when a layer is made
    if op.is_float or op.tile is not None:
        return KernelProduct(op.encoding, static=op.static, tile=op.tile)
    if op.group is None:
        return KernelProduct(Blocked(op.blocked.grid, CHANNEL), static=op.static)
    scale = HALF if op.blocked.scale == HALF else SINGLE
    return KernelProduct(Blocked(op.blocked.grid, group(CHUNK), scale), static=op.static)


class CpuTemplate(Template[CpuProcessor]):
    """A way to multiply rows of activations with stored weights.

    The shim calls its functions by their ``words``; what it must know of them beside stands in `facts`.
    """

    ceiling: ClassVar[str] = FLOATS
    """The measured ceiling of the instruction that it multiplies by."""
    of_tiles: ClassVar[bool] = False
    """It is for weights of which tiles are stored alone, and for no others."""

    def serves(self, op: KernelOp, processor: CpuProcessor, activations: Arithmetic) -> bool:
        """See `Template.serves`."""
        return isinstance(op, LinearOp) and self.takes(product_of(op), processor, activations)

    def takes(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """It is for such weights, reads their codes, and `accepts` them."""
        return (
            product.codes.fits
            and (product.tile is not None) == self.of_tiles
            and self.accepts(product, processor, activations)
        )

    @abstractmethod
    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """It multiplies such weights on such a processor, rounding activations as asked for at most."""

    @abstractmethod
    def functions(self, product: KernelProduct) -> dict[str, str]:
        """The functions' names by the shim's words."""

    @abstractmethod
    def make(self, word: str, name: str, product: KernelProduct, processor: CpuProcessor) -> Expr:
        """The TIR of the function that the shim calls by a word, under a name."""

    def facts(self, product: KernelProduct) -> dict[str, int]:
        """Fields of the shim's `Family`."""
        return {}
