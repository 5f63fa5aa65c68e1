"""How attentions over kept blocks are made: one function that meets a block of queries with a block of keys."""

from collections.abc import Iterable
from typing import ClassVar

from qcc.codegen.cpu.processors.processors import AVX2, AVX512, CpuProcessor
from qcc.codegen.target.target import Arithmetic, Template
from qcc.ir.kernel.attend_op import AttendOp
from qcc.ir.kernel.kernel_op import KernelOp

Expr = object  # of TVM, which carries no types
WIDE = 64  # keys, or channels, that are worked on together
MOST_BLOCK, MOST_CHANNELS = 512, 512  # scores of some rows lie in the first cache


class Attends(Template[CpuProcessor]):
    """In float32, with sums that are scaled anew as larger scores come."""

    name: ClassVar[str] = "attention over blocks in float32"

    def serves(self, op: KernelOp, processor: CpuProcessor, activations: Arithmetic) -> bool:
        """Blocks of whole vectors."""
        if not isinstance(op, AttendOp) or not processor.has(*AVX2) or op.segment % op.block:
            return False
        whole = op.block % WIDE == 0 and op.channels % WIDE == 0
        return whole and op.block <= MOST_BLOCK and op.channels <= MOST_CHANNELS


ATTENDS = Attends()


def name_of(op: AttendOp) -> str:
    """The function that the shim calls for an op."""
    return f"attend_block{op.block}_of{op.channels}"


def attend_functions(ops: Iterable[AttendOp], target: CpuProcessor, prefix: str) -> dict[str, Expr]:
    """The TIR of all that the ops need, by name."""
    from qcc.codegen.cpu.attend.kernel import attend

    wide = target.has(*AVX512)
    return {prefix + name_of(op): attend(prefix + name_of(op), op.block, op.channels, wide) for op in ops}
