"""CUDA's kernels as one shared library: PTX for each processor, and the C shim that hands it to the driver."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from qcc.codegen.cuda.processors import CudaProcessor
from qcc.codegen.library.link import library
from qcc.codegen.target.digest import digest
from qcc.codegen.target.errors import BuildError
from qcc.codegen.target.machine import here
from qcc.codegen.target.tvm_package import tvm_version
from qcc.codegen.tir.codes import codes_of
from qcc.ir.encoding.packing import planes
from qcc.ir.kernel.op import LinearOp

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
    """The tables of the shim, in C: the ops, and PTX for each processor, the best first.

    Raises:
        BuildError: TVM gave kernels of one op parameters in several orders.
    """
    from qcc.codegen.cuda.generate import ptx  # loads TVM
    from qcc.codegen.cuda.product import MANY, OUTPUTS, WARP, WARPS

    best, made = sorted(processors, key=lambda one: -one.number), []
    lines = [f"enum {{ QCC_OPS = {len(ops)}, MANY = {MANY}, OUTPUTS = {OUTPUTS}, WARP = {WARP}, WARPS = {WARPS} }};"]
    for index, processor in enumerate(best):
        text, orders = ptx(ops, processor)
        lines.append(f"static const char ptx{index}[] =\n{_literal(text)};")
        made.append(orders)
    entries = ", ".join(f"{{{one.number}, ptx{index}}}" for index, one in enumerate(best))
    lines += [f"static const Code codes[] = {{{entries}}};", "static const Spec specs[] = {"]
    return "\n".join([*lines, *(_spec(op, _order(op, made)) for op in ops), "};\n"])


def _order(op: LinearOp, made: Sequence[Mapping[str, Sequence[str]]]) -> tuple[str, ...]:
    """The op's pointers in the order in which all its kernels take them."""
    from qcc.codegen.cuda.product import SIZES, variants

    found = {tuple(orders[op.name + variant.name]) for orders in made for variant in variants(op)}
    order = next(iter(found))
    if len(found) > 1 or order[-len(SIZES) :] != SIZES:
        raise BuildError(f"the kernels of `{op.name}` take their parameters in several orders")
    return order[: -len(SIZES)]


def _spec(op: LinearOp, order: Sequence[str]) -> str:
    names = [*op.inputs, "y"]
    codes, operands = codes_of(op.encoding), "".join(kind[0] for _, kind in op.step_inputs)
    widths, fields = planes(codes.bits), ", ".join(str(names.index(name)) for name in order)
    facts = f"{len(widths)}, {widths[0]}, {int(codes.stored_zero)}"
    return f'  {{"{op.name}", {facts}, "{operands}", {len(order)}, {{{fields}}}}},'


def _literal(text: str) -> str:
    pieces = (text[at : at + STRING] for at in range(0, len(text), STRING))
    return "\n".join('"' + one.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"' for one in pieces)
