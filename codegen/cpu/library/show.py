"""What a library of kernels is made of, as text: the TIR of its functions, and the assembly that LLVM makes of it."""

import re
from collections.abc import Callable, Iterable

from qcc.codegen.cpu.library.generate import compiled, functions
from qcc.codegen.cpu.library.header import prefix
from qcc.codegen.cpu.library.spec import apart, products, served
from qcc.codegen.cpu.processors.processors import CpuProcessor
from qcc.codegen.cpu.templates import templates
from qcc.codegen.target.target import Arithmetic
from qcc.codegen.tir.emit import Expr
from qcc.ir.kernel.kernel_op import KernelOp

Texts = Callable[[dict[str, Expr], CpuProcessor], dict[str, str]]
END = re.compile(r"^\.Lfunc_end\d+:$", re.MULTILINE)
LABEL = re.compile(r"^([A-Za-z_]\w*):", re.MULTILINE)
NOISE = (".cfi_", ".loc", ".file", ".size", ".type", ".globl", ".p2align", ".text", ".section", ".Lfunc", ".Ltmp")
"""What an assembler and a debugger need, and a reader does not."""


def tir(ops: Iterable[KernelOp], targets: Iterable[CpuProcessor], activations: Arithmetic) -> str:
    """The TIR of all that a library of these ops has, for each target function by function."""
    return _listing(ops, targets, activations, _tir)


def assembly(ops: Iterable[KernelOp], targets: Iterable[CpuProcessor], activations: Arithmetic) -> str:
    """The assembly of the same functions, without the entries that take apart their arguments and call them."""
    return _listing(ops, targets, activations, _assembly)


def _listing(ops: Iterable[KernelOp], targets: Iterable[CpuProcessor], activations: Arithmetic, texts: Texts) -> str:
    parts, specs = [], sorted(set(ops), key=lambda op: op.name)
    for index, target in enumerate(targets):
        made = functions(specs, activations, target, prefix(index))
        used = (templates(one, target, activations) for one in products(served(specs, target, activations)))
        names = dict.fromkeys(template.name for one in used for template in one)
        names |= {template.name: None for _, template in apart(specs, target, activations)}
        parts.append(f"# target {target.name}: {', '.join((target.mcpu, *names))}\n")
        parts += [f"# {name}\n{text}" for name, text in texts(made, target).items()]
    return "\n".join(parts)


def _tir(made: dict[str, Expr], _: CpuProcessor) -> dict[str, str]:
    return {name: _uncommented(function.script()) for name, function in made.items()}


def _uncommented(script: str) -> str:
    """A function without the imports that TVM writes before it, as comments."""
    return "".join(f"{line}\n" for line in script.splitlines() if line and not line.startswith("# "))


def _assembly(made: dict[str, Expr], target: CpuProcessor) -> dict[str, str]:
    pieces = END.split(compiled(made, target).mod.inspect_source("s"))
    bodies = {found[1]: _cleaned(piece) for piece in pieces if (found := LABEL.search(piece))}
    return {name: bodies.get(f"{name}_compute_") or bodies[f"__tvm_ffi_{name}"] for name in made}


def _cleaned(piece: str) -> str:
    """A function with the constants before it: labels, instructions and data."""
    lines = (line.strip() for line in piece.splitlines())
    kept = [line for line in lines if line and not line.startswith((*NOISE, "#DEBUG", "//DEBUG"))]
    return "".join(f"{'' if line.partition(' ')[0].endswith(':') else '    '}{line.expandtabs(8)}\n" for line in kept)
