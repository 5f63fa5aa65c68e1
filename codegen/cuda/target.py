"""NVIDIA's GPUs, as ONNX Runtime's CUDA provider runs them: plain, and with kernels.

The library speaks to the driver alone, so that it is made where no CUDA is installed and there is no card.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from qcc.codegen.cpu.tvm_package import TVM, tvm_version
from qcc.codegen.cuda.processors import PROCESSORS, CudaProcessor
from qcc.codegen.target.target import CPU, Arithmetic, Target, Template
from qcc.ir.graph.costs import CapabilityTable
from qcc.ir.kernel.op import LinearOp


class Rows(Template[CudaProcessor]):
    """Codes that are decoded in registers, met by up to eight rows; exact to the order of a sum."""

    name: ClassVar[str] = "rows"

    def serves(self, op: LinearOp, processor: CudaProcessor, activations: Arithmetic) -> bool:
        """See `Template.serves`."""
        from qcc.codegen.cuda.served import takes

        return takes(op)


class Cuda(Target[CudaProcessor]):
    """ONNX Runtime's CUDA provider with kernels of products of few rows; runs on any CPU."""

    name: ClassVar[str] = "cuda"
    providers: ClassVar[tuple[str, ...]] = ("CUDAExecutionProvider", *CPU)
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
        return (Rows(),)

    def make(
        self,
        ops: tuple[LinearOp, ...],
        processors: tuple[CudaProcessor, ...],
        out: Path,
        activations: Arithmetic,
        fresh: bool,
    ) -> None:
        """See `Target.make`."""
        from qcc.codegen.cuda.library import build

        build(ops, processors, out, fresh)

    def show(self, stage: str, ops: Iterable[LinearOp], names: Iterable[str], activations: Arithmetic) -> str:
        """The TIR of the kernels, or their PTX."""
        tvm_version()
        from qcc.codegen.cuda import generate  # loads TVM

        if stage == "tir":
            return "\n".join(map(str, generate.functions(ops).values()))
        return "\n".join(generate.ptx(ops, one)[0] for one in self.named(names))
