"""How convolutions of bytes are made: one product for all kernels, and depthwise ones by their windows."""

from collections.abc import Sequence
from typing import ClassVar

from qcc.codegen.cpu.apart import ApartTemplate
from qcc.codegen.cpu.chain.taps import taps_of
from qcc.codegen.cpu.processors.processors import AVX2, VNNI, CpuProcessor
from qcc.ir.kernel.chain_op import ChainOp
from qcc.ir.kernel.pool_op import PoolOp
from qcc.ir.kernel.window import KernelWindow

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
        """All of them but filters a channel that add a residual."""
        return processor.has(*AVX2) and not (op.depthwise and op.adds)

    def names(self, op: ChainOp, processor: CpuProcessor) -> tuple[str, ...]:
        """The product, or of channels by `WIDTHS`, of which the first may be too wide for a processor."""
        if not op.depthwise:
            return (f"qconv_product{'_add' * op.adds}{'_last' * op.last}",)
        of = f"qconv_depthwise{taps_of(op).words}"
        return tuple(f"{of}_of{width}" if width <= 4 * lanes(processor) else "" for width in WIDTHS)

    def make(self, op: ChainOp, processor: CpuProcessor, prefix: str) -> dict[str, Expr]:
        """See `ApartTemplate.make`."""
        from qcc.codegen.cpu.chain.depthwise import depthwise
        from qcc.codegen.cpu.chain.dots import Avx2, Vnni
        from qcc.codegen.cpu.chain.product import product

        dot = Vnni() if lanes(processor) == Vnni.lanes else Avx2()
        taps, made = taps_of(op), dict[str, Expr]()
        for width, name in zip(WIDTHS, self.names(op, processor), strict=False):
            if name:
                full = prefix + name
                made[full] = depthwise(full, dot, taps, width) if op.depthwise else product(full, dot, op.adds, op.last)
        return made

    def fields(self, op: ChainOp, processor: CpuProcessor, functions: Sequence[str]) -> tuple[object, ...]:
        """See `ApartTemplate.fields`."""
        called = ("NULL", f"{{{', '.join(functions)}}}") if op.depthwise else (*functions, "{NULL}")
        how = (
            int(op.depthwise),
            op.groups,
            op.bits * op.packed,
            CUTS.index(op.cut),
            int(op.adds),
            int(op.last),
            int(op.cut_sum),
        )
        return (window_text(op.window), *how, lanes(processor), *called)


class Pools(ApartTemplate[PoolOp]):
    """Of as many channels as a vector holds, 16 at least."""

    name: ClassVar[str] = "pools of bytes"
    kind: ClassVar[type] = PoolOp
    row: ClassVar[str] = "PoolSpec"
    serve: ClassVar[str] = "serve_pool"

    def makes(self, op: PoolOp, processor: CpuProcessor) -> bool:
        """Those that the runtime has, too."""
        return processor.has(*AVX2) and (op.pooled == "mean" or op.window is not None)

    def names(self, op: PoolOp, processor: CpuProcessor) -> tuple[str, ...]:
        """One for all windows."""
        return (f"qpool_{op.pooled if op.window else 'whole'}",)

    def make(self, op: PoolOp, processor: CpuProcessor, prefix: str) -> dict[str, Expr]:
        """See `ApartTemplate.make`."""
        from qcc.codegen.cpu.chain.dots import Avx2, Vnni
        from qcc.codegen.cpu.chain.pool import pool

        (name,) = self.names(op, processor)
        dot = Vnni() if lanes(processor) == Vnni.lanes else Avx2()
        return {prefix + name: pool(prefix + name, dot, op.pooled if op.window else "whole")}

    def fields(self, op: PoolOp, processor: CpuProcessor, functions: Sequence[str]) -> tuple[object, ...]:
        """See `ApartTemplate.fields`."""
        window = op.window or KernelWindow((1,) * op.axes)
        return window_text(window), int(op.pooled == "mean"), int(op.window is None), *functions


CHAINS, POOLS = Chains(), Pools()


def window_text(window: KernelWindow) -> str:
    """A window, as C has it."""
    solid = window.solid
    sizes = solid.kernel, solid.strides, solid.pads[:3], solid.pads[3:], solid.dilations
    lists = (f"{{{', '.join(map(str, one))}}}" for one in sizes)
    return f"{{{window.axes}, {', '.join(lists)}}}"


def lanes(processor: CpuProcessor) -> int:
    """Of a vector of sums on a processor, by which weights are packed."""
    return 16 if processor.has(*VNNI) else 8
