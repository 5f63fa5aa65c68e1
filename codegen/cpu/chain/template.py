"""How convolutions of bytes are made: one product for all kernels, and depthwise ones by their windows."""

from collections.abc import Sequence
from typing import ClassVar

from qcc.codegen.cpu.apart import ApartTemplate
from qcc.codegen.cpu.processors.processors import AVX2, VNNI, CpuProcessor
from qcc.ir.kernel.chain_op import ChainOp

Expr = object  # of TVM, which carries no types
WIDTHS = (64, 32, 16)  # of channels, in the order of the shim
CUTS = ("", "relu", "clip")  # by the shim's number


class Chains(ApartTemplate[ChainOp]):
    """By ``vpdpbusd``, and where that is missing by ``vpmaddwd``, both of which are exact."""

    name: ClassVar[str] = "convolutions of bytes"
    kind: ClassVar[type] = ChainOp
    row: ClassVar[str] = "ChainSpec"
    serve: ClassVar[str] = "serve_filter"

    def makes(self, op: ChainOp, processor: CpuProcessor) -> bool:
        """All of them."""
        return processor.has(*AVX2)

    def names(self, op: ChainOp, processor: CpuProcessor) -> tuple[str, ...]:
        """The product, or of channels by `WIDTHS`, of which the first may be too wide for a processor."""
        if not op.depthwise:
            return (f"qconv_product{'_add' * op.adds}",)
        sizes = ("x".join(map(str, one)) for one in (op.kernel, op.strides))
        of = "qconv_depthwise{}_stride{}".format(*sizes)
        return tuple(f"{of}_of{width}" if width <= 4 * lanes(processor) else "" for width in WIDTHS)

    def make(self, op: ChainOp, processor: CpuProcessor, prefix: str) -> dict[str, Expr]:
        """See `ApartTemplate.make`."""
        from qcc.codegen.cpu.chain.depthwise import Taps, depthwise
        from qcc.codegen.cpu.chain.dots import Avx2, Vnni
        from qcc.codegen.cpu.chain.product import product

        dot = Vnni() if lanes(processor) == Vnni.lanes else Avx2()
        taps, made = Taps(*op.kernel, *op.strides), dict[str, Expr]()
        for width, name in zip(WIDTHS, self.names(op, processor), strict=False):
            if name:
                full = prefix + name
                made[full] = depthwise(full, dot, taps, width) if op.depthwise else product(full, dot, op.adds)
        return made

    def fields(self, op: ChainOp, processor: CpuProcessor, functions: Sequence[str]) -> tuple[object, ...]:
        """See `ApartTemplate.fields`."""
        called = ("NULL", f"{{{', '.join(functions)}}}") if op.depthwise else (*functions, "{NULL}")
        sizes = *op.kernel, *op.strides, *op.pads
        done = int(op.depthwise), op.bits * op.packed, CUTS.index(op.cut), int(op.adds), int(op.cut_sum)
        return (*sizes, *done, lanes(processor), *called)


CHAINS = Chains()


def lanes(processor: CpuProcessor) -> int:
    """Of a vector of sums on a processor, by which weights are packed."""
    return 16 if processor.has(*VNNI) else 8
