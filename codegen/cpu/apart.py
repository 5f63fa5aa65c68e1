"""What makes kernels of ops that are no products: their functions, and the row of the shim's table that names them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from qcc.codegen.cpu.processors.processors import CpuProcessor
from qcc.codegen.target.target import Arithmetic, Template
from qcc.ir.kernel.kernel_op import KernelOp

Expr = object  # of TVM, which carries no types
OpT = TypeVar("OpT", bound=KernelOp)


class ApartTemplate(Template[CpuProcessor], Generic[OpT]):
    """Makes kernels of one kind of ops, which a C file of the shim calls."""

    kind: ClassVar[type]
    """Of the ops."""
    row: ClassVar[str]
    """The C type of what the shim is told of an op."""
    serve: ClassVar[str]
    """The C function that tells of an op what the runtime asks."""

    def serves(self, op: KernelOp, processor: CpuProcessor, activations: Arithmetic) -> bool:
        """See `Template.serves`: what is rounded there is rounded in any case."""
        return isinstance(op, self.kind) and self.makes(op, processor)  # type: ignore[arg-type]  # of its kind

    @abstractmethod
    def makes(self, op: OpT, processor: CpuProcessor) -> bool:
        """There is a kernel of such an op."""

    @abstractmethod
    def names(self, op: OpT, processor: CpuProcessor) -> tuple[str, ...]:
        """The functions that the shim calls for an op; empty where a processor has none in that place."""

    @abstractmethod
    def make(self, op: OpT, processor: CpuProcessor, prefix: str) -> Mapping[str, Expr]:
        """The TIR of these functions, by their names behind a prefix."""

    @abstractmethod
    def fields(self, op: OpT, processor: CpuProcessor, functions: Sequence[str]) -> tuple[object, ...]:
        """The row behind the op's name, as C has it; functions are spelled as it calls them, those missing ``NULL``."""
