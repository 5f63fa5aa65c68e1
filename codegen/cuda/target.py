"""NVIDIA's GPUs, as ONNX Runtime's CUDA provider runs them: plain, and with kernels.

The library speaks to the driver alone, so that it is made where no CUDA is installed and there is no card.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from qcc.codegen.cuda.processors import PROCESSORS, CudaProcessor
from qcc.codegen.cuda.served import takes
from qcc.codegen.target.errors import TargetError
from qcc.codegen.target.target import Arithmetic, Target, Template
from qcc.codegen.target.tvm_package import TVM, tvm_version
from qcc.ir.graph.costs import CapabilityTable
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.op import LinearOp

USUAL = "sm_80"


class FewRows(Template[CudaProcessor]):
    """Codes that are decoded in registers, met by up to eight rows; exact to the order of a sum."""

    name: ClassVar[str] = "few rows"

    def serves(self, op: KernelOp, processor: CudaProcessor, activations: Arithmetic) -> bool:
        """See `Template.serves`."""
        return isinstance(op, LinearOp) and takes(op)


class Cuda(Target[CudaProcessor]):
    """ONNX Runtime's CUDA provider with kernels of products of few rows; runs on any CPU."""

    name: ClassVar[str] = "cuda"
    providers: ClassVar[tuple[str, ...]] = ("CUDAExecutionProvider",)
    maker: ClassVar[str] = "tvm"
    stages: ClassVar[tuple[str, ...]] = ("tir", "ptx")
    packages: ClassVar[tuple[str, ...]] = (TVM,)

    @property
    def capabilities(self) -> Mapping[str, CapabilityTable]:
        """None: what layers take there was not measured by form."""
        return {}

    @property
    def processors(self) -> tuple[CudaProcessor, ...]:
        """See `Target.processors`."""
        return tuple(PROCESSORS.values())

    @property
    def templates(self) -> tuple[Template[CudaProcessor], ...]:
        """See `Target.templates`."""
        return (FewRows(),)

    def native(self) -> CudaProcessor:
        """See `Target.native`."""
        if obstacle := self.processors[0].obstacle:
            raise TargetError(f"{obstacle}: name what kernels are for, as in `{self.name}({USUAL})`")
        return super().native()

    def make(
        self,
        ops: tuple[KernelOp, ...],
        processors: tuple[CudaProcessor, ...],
        out: Path,
        activations: Arithmetic,
        fresh: bool,
    ) -> None:
        """See `Target.make`."""
        from qcc.codegen.cuda.library import build

        build(_products(ops), processors, out, fresh)

    def show(self, stage: str, ops: Iterable[KernelOp], names: Iterable[str], activations: Arithmetic) -> str:
        """The TIR of the kernels, or their PTX."""
        tvm_version()
        from qcc.codegen.cuda import generate  # loads TVM

        taken = _products(ops)
        if stage == "tir":
            return "\n".join(map(str, generate.functions(taken).values()))
        return "\n".join(generate.ptx(taken, one)[0] for one in self.named(names))


def _products(ops: Iterable[KernelOp]) -> list[LinearOp]:
    """Those that there are kernels for."""
    return [op for op in ops if isinstance(op, LinearOp) and takes(op)]
