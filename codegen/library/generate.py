"""From ops to an object file: the templates, compiled by TVM."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import tvm  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.cpu import (
    conv1x1,
    gemm_bf16,
    gemm_int8,
    gemv_avx2,
    gemv_bf16,
    gemv_exact,
    gemv_int8,
    gemv_neon,
    static,
    steps,
)
from qcc.codegen.cpu.emit import Expr
from qcc.codegen.library.spec import FunctionKey, chain, chain_name, kinds, norm, served
from qcc.codegen.target.interruption import held_back
from qcc.codegen.target.target import DOTPROD, VNNI, CpuTarget
from qcc.codegen.target.tiling import tiling
from qcc.ir.kernel.op import LinearOp

ROWS = {"one": 1, "four": 4}
SHARED = {
    "quantize": gemv_int8.quantize,
    "pack_bf16": gemm_bf16.pack,
    "pack_int8": gemm_int8.pack,
    "pack_conv1x1": conv1x1.pack,
    "quantize_static": static.quantize,
    "round_static": static.round_floats,
    "pack_static": static.pack,
}


def functions(ops: Iterable[LinearOp], families: tuple[str, ...], target: CpuTarget, prefix: str) -> dict[str, Expr]:
    """The TIR of all that the ops need, by name."""
    made: dict[str, Expr] = {}
    ops = served(ops, families)
    for op in ops:
        name = prefix + chain_name(op)
        if name not in made:
            made[name] = (conv1x1.product if op.pointwise else steps.chain)(name, chain(op))
    for step in {norm(op) for op in ops} - {""}:
        made[prefix + step] = steps.norm(prefix + step, step)
    for kind in kinds(ops):
        for word, name in kind.functions(families).items():
            full = prefix + name
            if full not in made:
                made[full] = SHARED[name](full) if name in SHARED else _function(full, word, kind, families, target)
    return dict(sorted(made.items()))


def _function(name: str, word: str, kind: FunctionKey, families: tuple[str, ...], target: CpuTarget) -> Expr:
    """The function that the shim calls by that word."""
    if word == "gemm":
        template = gemm_int8.gemm if kind.many(families) == "int8" else gemm_bf16.gemm
        return template(name, kind.bits, kind.symmetric, tiling(target))
    rows = ROWS[word]
    if kind.bits == 16:
        return gemv_bf16.gemv(name, rows, target.has(*VNNI))
    if not kind.rounds(families):
        return gemv_exact.gemv(name, kind.bits, kind.symmetric, rows, target.has(*VNNI))
    rounded = gemv_neon if target.has(*DOTPROD) else gemv_int8 if target.has(*VNNI) else gemv_avx2
    return rounded.gemv(name, kind.bits, kind.symmetric, rows, kind.static)


def generate(
    ops: Iterable[LinearOp], families: tuple[str, ...], target: CpuTarget, out: Path, prefix: str = ""
) -> None:
    """Compile to the object file ``out``; the prefix keeps apart the functions for several targets."""

    def keep(_: str, files: list[str], **__: object) -> None:
        shutil.copy(next(file for file in files if file.endswith(".o")), out)

    made = compiled(functions(ops, families, target, prefix), target)
    made.export_library(str(out.with_suffix(".tvm.so")), fcompile=keep)


def compiled(made: dict[str, Expr], target: CpuTarget) -> Expr:
    """TVM's executable of these functions."""
    machine = tvm.target.Target({"kind": "llvm", "mcpu": target.mcpu, "mtriple": target.triple})
    options = {"tirx.disable_storage_rewrite": True}  # it would merge registers into one array
    with held_back(), tvm.transform.PassContext(config=options):
        return tvm.compile(tvm.IRModule(made), target=machine)
