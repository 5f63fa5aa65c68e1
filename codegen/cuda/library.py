"""CUDA's kernels as one shared library: PTX for each processor, and the C shim that hands it to the driver."""

from collections.abc import Sequence
from pathlib import Path

from qcc.codegen.cpu.tvm_package import tvm_version
from qcc.codegen.cuda.processors import CudaProcessor
from qcc.codegen.library.link import library
from qcc.codegen.target.digest import digest
from qcc.codegen.target.machine import here
from qcc.ir.encoding.packing import planes
from qcc.ir.kernel.op import CHUNK, LinearOp

CUDA = Path(__file__).parent
SHIM = CUDA / "shim"
STRING = 4000  # characters of a literal in C, which may have few


def build(ops: Sequence[LinearOp], processors: Sequence[CudaProcessor], out: Path, fresh: bool) -> None:
    """Write the library that serves ops to ``out``, from the cache if it was built before.

    Raises:
        BuildError: TVM or a C compiler is missing, or failed.
    """
    facts = ops, processors, tvm_version(), digest(CUDA)

    def write(folder: Path) -> list[Path]:
        (folder / "kernels.h").write_text(header(ops, processors), encoding="utf-8")
        return sorted(SHIM.glob("*.c"))

    library(here(), facts, write, out, fresh)


def header(ops: Sequence[LinearOp], processors: Sequence[CudaProcessor]) -> str:
    """The tables of the shim, in C: the ops, and PTX for each processor, the best first."""
    from qcc.codegen.cuda.generate import ptx  # loads TVM
    from qcc.codegen.cuda.product import MANY, OUTPUTS, WARP, WARPS

    best = sorted(processors, key=lambda one: -one.number)
    lines = [f"enum {{ QCC_OPS = {len(ops)}, MANY = {MANY}, OUTPUTS = {OUTPUTS}, WARP = {WARP}, WARPS = {WARPS} }};"]
    lines += [f"static const char ptx{index}[] =\n{_literal(ptx(ops, one))};" for index, one in enumerate(best)]
    entries = ", ".join(f"{{{one.number}, ptx{index}}}" for index, one in enumerate(best))
    return "\n".join(
        [*lines, f"static const Code codes[] = {{{entries}}};", "static const Spec specs[] = {", *map(_spec, ops), "};\n"]
    )


def _spec(op: LinearOp) -> str:
    from qcc.codegen.cuda.product import SIZES, parameters

    names = [*op.inputs, "y"]
    order = [names.index(name) for name in parameters(op) if name not in SIZES]
    bits = next(part.bits for name, part in op.encoding.parts((1, op.group or CHUNK)).items() if name == "codes")
    operands = "".join(kind[0] for _, kind in op.step_inputs)
    zero = int("zero" in op.weight_inputs)
    first, fields = planes(bits)[0], ", ".join(map(str, order))
    return f'  {{"{op.name}", {len(planes(bits))}, {first}, {zero}, "{operands}", {len(order)}, {{{fields}}}}},'


def _literal(text: str) -> str:
    pieces = (text[at : at + STRING] for at in range(0, len(text), STRING))
    return "\n".join('"' + one.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"' for one in pieces)
