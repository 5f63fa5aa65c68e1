"""The CPU's kernels as one shared library: TVM's object code for each processor, and the C shim."""

from collections.abc import Iterable
from pathlib import Path

from qcc.codegen.cpu.library.header import header, prefix
from qcc.codegen.cpu.processors.processors import CpuProcessor, architecture
from qcc.codegen.library.link import library
from qcc.codegen.target.digest import digest
from qcc.codegen.target.errors import BuildError
from qcc.codegen.target.target import Arithmetic
from qcc.codegen.target.tvm_package import tvm_version
from qcc.ir.kernel.kernel_op import KernelOp

CPU = Path(__file__).parents[1]
SHIM = CPU / "shim"


def build(
    ops: Iterable[KernelOp],
    processors: tuple[CpuProcessor, ...],
    out: Path,
    activations: Arithmetic = "bf16",
    fresh: bool = False,
) -> Path:
    """Write the library that serves these ops to ``out``, from the cache if it was built before.

    Args:
        ops: in any order, repeats allowed.
        processors: to build for, the best first. The library uses the code for the first whose instructions it finds,
            and registers nothing if it finds those of none.
        out: the file to write, replaced at once.
        activations: ``bf16`` rounds them to int8 by 32 neighbours where rows are few and to bfloat16 where they are
            many; ``int8`` rounds many rows to int8, each row by itself, where codes share one scale; ``exact`` keeps
            float32. A processor without such instructions computes more exactly.
        fresh: build it even where it was built before.

    Raises:
        BuildError: TVM or a C compiler for the processors is missing, or failed.
        TargetError: the processors are of several architectures, which no library can be for.
    """
    specs = tuple(sorted(set(ops), key=lambda op: op.name))
    if not specs or not processors:
        raise BuildError("there are no kernels to build")
    facts = specs, processors, activations, tvm_version(), digest(CPU)

    def write(folder: Path) -> list[Path]:
        return write_sources(specs, processors, activations, folder)

    library(architecture(processors), facts, write, out, fresh)
    return out


def write_sources(
    specs: tuple[KernelOp, ...], processors: tuple[CpuProcessor, ...], activations: Arithmetic, folder: Path
) -> list[Path]:
    """Write to a folder what the shim's C files include, and give these files and the processors' objects."""
    from qcc.codegen.cpu.library.generate import generate  # loads TVM

    objects = []
    for index, processor in enumerate(processors):
        objects.append(folder / f"kernels{index}.o")
        generate(specs, activations, processor, objects[-1], prefix(index))
    (folder / "kernels.h").write_text(header(specs, processors, activations), encoding="utf-8")
    return [*sorted(SHIM.glob("*.c")), *objects]
