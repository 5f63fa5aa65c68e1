"""From ops to an object file: the templates, compiled by TVM."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import tvm  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.cpu.library.spec import apart, chain, functions_of, norm, products, served, step_chains
from qcc.codegen.cpu.processors.processors import CpuProcessor
from qcc.codegen.cpu.tiles import conv1x1
from qcc.codegen.target.interruption import held_back
from qcc.codegen.target.target import Arithmetic
from qcc.codegen.tir import steps
from qcc.codegen.tir.emit import Expr
from qcc.ir.kernel.kernel_op import KernelOp


def functions(ops: Iterable[KernelOp], activations: Arithmetic, target: CpuProcessor, prefix: str) -> dict[str, Expr]:
    """The TIR of all that the ops need, by name."""
    given = list(ops)
    made: dict[str, Expr] = {}
    for op, template in apart(given, target, activations):
        if not all(prefix + name in made for name in template.names(op, target) if name):
            made |= template.make(op, target, prefix)
    ops = served(given, target, activations)
    for word, one in step_chains(ops).items():
        made[prefix + word] = (conv1x1.product if one.pointwise else steps.chain)(prefix + word, chain(one))
    for step in {norm(op) for op in ops} - {""}:
        made[prefix + step] = steps.norm(prefix + step, step)
    for product in products(ops):
        for word, (name, maker) in functions_of(product, target, activations).items():
            full = prefix + name
            if full not in made:
                made[full] = maker.make(word, full, product, target)
    return dict(sorted(made.items()))


def generate(
    ops: Iterable[KernelOp], activations: Arithmetic, target: CpuProcessor, out: Path, prefix: str = ""
) -> None:
    """Compile to the object file ``out``; the prefix keeps apart the functions for several targets."""

    def keep(_: str, files: list[str], **__: object) -> None:
        shutil.copy(next(file for file in files if file.endswith(".o")), out)

    made = compiled(functions(ops, activations, target, prefix), target)
    made.export_library(str(out.with_suffix(".tvm.so")), fcompile=keep)


def compiled(made: dict[str, Expr], target: CpuProcessor) -> Expr:
    """TVM's executable of these functions."""
    machine = tvm.target.Target({"kind": "llvm", "mcpu": target.mcpu, "mtriple": target.triple})
    options = {"tirx.disable_storage_rewrite": True}  # it would merge registers into one array
    with held_back(), tvm.transform.PassContext(config=options):
        return tvm.compile(tvm.IRModule(made), target=machine)
