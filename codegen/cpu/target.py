"""The CPU, as ONNX Runtime's own provider runs it: plain, and with kernels.

How kernels are made is loaded where some are asked for: whoever only names the target has no need of it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from qcc.codegen.cpu.processors.processors import PROCESSORS, CpuProcessor, architecture, native
from qcc.codegen.target import capabilities
from qcc.codegen.target.ceiling import Ceilings
from qcc.codegen.target.errors import TargetError
from qcc.codegen.target.target import Arithmetic, KernelBound, Target, Template, Ticker
from qcc.codegen.target.tvm_package import TVM, tvm_version
from qcc.ir.graph.costs import CapabilityTable
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.op import LinearOp

DATA = Path(__file__).with_name("capabilities.json")


class OnnxRuntime(Target[CpuProcessor]):
    """plain ONNX Runtime on any CPU."""

    name: ClassVar[str] = "onnxruntime"
    default: ClassVar[bool] = True

    @property
    def capabilities(self) -> Mapping[str, CapabilityTable]:
        """The tables of all instruction sets that were measured."""
        return capabilities.read(DATA)


class Cpu(OnnxRuntime):
    """ONNX Runtime with kernels made for these processors, by default for this machine's; runs on any CPU."""

    name: ClassVar[str] = "cpu"
    default: ClassVar[bool] = False
    maker: ClassVar[str] = "tvm"
    stages: ClassVar[tuple[str, ...]] = ("tir", "asm")
    packages: ClassVar[tuple[str, ...]] = (TVM,)
    headings: ClassVar[Mapping[str, str]] = {"mcpu": "LLVM's processor", "features": "instructions"}
    joins: ClassVar[bool] = True
    has_ceilings: ClassVar[bool] = True

    @property
    def processors(self) -> tuple[CpuProcessor, ...]:
        """See `Target.processors`."""
        return tuple(PROCESSORS.values())

    @property
    def templates(self) -> tuple[Template[CpuProcessor], ...]:
        """See `Target.templates`."""
        from qcc.codegen.cpu import templates

        return (*templates.FEW, *templates.MANY, templates.Behind(), *templates.APART)

    def native(self) -> CpuProcessor:
        """See `Target.native`; it has this machine's caches."""
        return native()

    def check(self, processors: tuple[CpuProcessor, ...]) -> None:
        """See that they are of one architecture."""
        architecture(processors)

    def make(
        self,
        ops: tuple[KernelOp, ...],
        processors: tuple[CpuProcessor, ...],
        out: Path,
        activations: Arithmetic,
        fresh: bool,
    ) -> None:
        """See `Target.make`."""
        from qcc.codegen.cpu.library.build import build

        build(ops, processors, out, activations, fresh)

    def show(self, stage: str, ops: Iterable[KernelOp], names: Iterable[str], activations: Arithmetic) -> str:
        """The TIR of the functions, or their assembly."""
        tvm_version()
        from qcc.codegen.cpu.library import show  # loads TVM

        return {"tir": show.tir, "asm": show.assembly}[stage](ops, self.named(names), activations)

    def ceilings(self) -> Ceilings | None:
        """What one core was measured to do at most."""
        from qcc.codegen.cpu.ceilings import ceilings

        return ceilings.known()

    def bound(self, op: KernelOp, rows: int, activations: Arithmetic = "bf16") -> KernelBound | None:
        """What the template that takes over from the fewest rows is bound by."""
        from qcc.codegen.cpu import templates
        from qcc.codegen.cpu.product import product_of

        if not isinstance(op, LinearOp):
            return None
        try:
            processor = native()
        except TargetError:
            return None
        product = product_of(op)
        found = templates.templates(product, processor, activations)
        facts = [(one, one.facts(product)) for one in found]
        taken = [pair for pair in facts if pair[1].get("many", 0) <= rows]
        return KernelBound(taken[-1][0].ceiling, bool(taken[-1][1].get("rounds"))) if taken else None

    def measure_ceilings(self, tick: Ticker) -> Ceilings:
        """See `Target.measure_ceilings`; takes some seconds."""
        from qcc.codegen.cpu.ceilings import ceilings

        return ceilings.measure(tick)
