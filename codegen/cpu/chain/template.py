"""How convolutions of bytes are made: one product for all kernels, and depthwise ones by their windows."""

from collections.abc import Iterable
from typing import ClassVar

from qcc.codegen.cpu.processors.processors import VNNI, CpuProcessor
from qcc.codegen.target.target import Arithmetic, Template
from qcc.ir.kernel.chain_op import ChainOp
from qcc.ir.kernel.kernel_op import KernelOp

Expr = object  # of TVM, which carries no types
WIDTHS = (64, 32, 16)  # of channels, in the order of the shim


class Chains(Template[CpuProcessor]):
    """By ``vpdpbusd``, which adds up products of bytes exactly."""

    name: ClassVar[str] = "convolutions of bytes by VNNI"

    def serves(self, op: KernelOp, processor: CpuProcessor, activations: Arithmetic) -> bool:
        """All of them; rounded they are in any case."""
        return isinstance(op, ChainOp) and processor.has(*VNNI)


CHAINS = Chains()


def names_of(op: ChainOp) -> tuple[str, ...]:
    """The functions that the shim calls for an op: the product, or of channels by `WIDTHS`."""
    if not op.depthwise:
        return (f"qconv_product{'_add' * op.adds}",)
    sizes = ("x".join(map(str, one)) for one in (op.kernel, op.strides))
    of = "qconv_depthwise{}_stride{}".format(*sizes)
    return tuple(f"{of}_of{width}" for width in WIDTHS)


def chain_functions(ops: Iterable[ChainOp], prefix: str) -> dict[str, Expr]:
    """The TIR of all that the ops need, by name."""
    from qcc.codegen.cpu.chain.depthwise import Taps, depthwise
    from qcc.codegen.cpu.chain.product import product

    made: dict[str, Expr] = {}
    for op in ops:
        for at, name in enumerate(names_of(op)):
            if (full := prefix + name) not in made:
                window = Taps(*op.kernel, *op.strides)
                made[full] = depthwise(full, window, WIDTHS[at]) if op.depthwise else product(full, op.adds)
    return made
