"""A toy target, and the whole of what a new one takes: this folder.

It multiplies by weights of 8 bits that share a scale by channel, in loops that a C compiler is left alone with. Its
processors are two, of which only one is measured to gain by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from qcc.codegen.library.link import library
from qcc.codegen.target import capabilities
from qcc.codegen.target.machine import here
from qcc.codegen.target.target import Arithmetic, Processor, Target, Template
from qcc.ir.graph.costs import CapabilityTable
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.op import BIAS, LinearOp

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Reference(Processor):
    """Any processor that a C compiler knows."""

    @property
    def obstacle(self) -> str:
        return ""


class PlainLoops(Template[Reference]):
    """Whole numbers of 8 bits around zero, by channel."""

    name: ClassVar[str] = "plain loops"

    def serves(self, op: KernelOp, processor: Reference, activations: Arithmetic) -> bool:
        if not isinstance(op, LinearOp) or op.encoding.name != "int8_channel":
            return False
        return not op.static and not op.pointwise and op.steps in ((), (BIAS,))


class Toy(Target[Reference]):
    """Kernels in plain C, which show what a target is."""

    name: ClassVar[str] = "toy"
    maker: ClassVar[str] = "cc"

    @property
    def capabilities(self) -> Mapping[str, CapabilityTable]:
        return capabilities.read(FOLDER / "capabilities.json")

    @property
    def processors(self) -> tuple[Reference, ...]:
        return Reference("slow"), Reference("quick")

    @property
    def templates(self) -> tuple[Template[Reference], ...]:
        return (PlainLoops(),)

    def make(
        self,
        ops: tuple[KernelOp, ...],
        processors: tuple[Reference, ...],
        out: Path,
        activations: Arithmetic,
        fresh: bool,
    ) -> None:
        served = self.served(ops, processors[0], activations)

        def write(folder: Path) -> tuple[Path, ...]:
            rows = "".join(f'  {{"{op.name}", {len(op.inputs)}}},\n' for op in served)
            (folder / "ops.inc").write_text(rows, encoding="utf-8")
            return (FOLDER / "kernels.c",)

        library(here(), (self.name, ops, processors, activations, self.digest()), write, out, fresh)
