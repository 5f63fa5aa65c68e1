"""How convolutions of bytes are made: one product for all kernels, and depthwise ones by their windows."""

from collections.abc import Iterable
from typing import ClassVar

from qcc.codegen.cpu.chain.taps import taps_of
from qcc.codegen.cpu.processors.processors import AVX2, VNNI, CpuProcessor
from qcc.codegen.target.target import Arithmetic, Template
from qcc.ir.kernel.chain_op import ChainOp
from qcc.ir.kernel.kernel_op import KernelOp

Expr = object  # of TVM, which carries no types
WIDTHS = (64, 32, 16)  # of channels, in the order of the shim


class Chains(Template[CpuProcessor]):
    """By ``vpdpbusd``, and where that is missing by ``vpmaddwd``, both of which are exact."""

    name: ClassVar[str] = "convolutions of bytes"

    def serves(self, op: KernelOp, processor: CpuProcessor, activations: Arithmetic) -> bool:
        """All of them; rounded they are in any case."""
        return isinstance(op, ChainOp) and processor.has(*AVX2)


CHAINS = Chains()


def lanes(processor: CpuProcessor) -> int:
    """Of a vector of sums on a processor, by which weights are packed."""
    return 16 if processor.has(*VNNI) else 8


def names_of(op: ChainOp, processor: CpuProcessor) -> tuple[str, ...]:
    """The functions that the shim calls for an op: the product, or of channels by `WIDTHS`, of which the first may be
    too wide for a processor.
    """
    if not op.depthwise:
        return (f"qconv_product{'_add' * op.adds}",)
    of = f"qconv_depthwise{taps_of(op).words}"
    return tuple(f"{of}_of{width}" if width <= 4 * lanes(processor) else "" for width in WIDTHS)


def chain_functions(ops: Iterable[ChainOp], processor: CpuProcessor, prefix: str) -> dict[str, Expr]:
    """The TIR of all that the ops need, by name."""
    from qcc.codegen.cpu.chain.depthwise import depthwise
    from qcc.codegen.cpu.chain.dots import Avx2, Vnni
    from qcc.codegen.cpu.chain.product import product

    dot = Vnni() if lanes(processor) == Vnni.lanes else Avx2()
    made: dict[str, Expr] = {}
    for op in ops:
        for width, name in zip(WIDTHS, names_of(op, processor), strict=False):
            if name and (full := prefix + name) not in made:
                made[full] = depthwise(full, dot, taps_of(op), width) if op.depthwise else product(full, dot, op.adds)
    return made
