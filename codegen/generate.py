"""From ops to an object file: the templates, compiled by TVM."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import tvm  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen import gemm_bf16, gemv_avx2, gemv_exact, gemv_int8, steps
from qcc.codegen.emit import Expr
from qcc.codegen.spec import chain, chain_name, kind_name, kinds, norm
from qcc.codegen.target import VNNI, CpuTarget
from qcc.codegen.tiling import tiling
from qcc.ir.kernel_op import LinearOp

ROWS = {"one": 1, "four": 4}


def functions(ops: Iterable[LinearOp], families: tuple[str, ...], target: CpuTarget, prefix: str) -> dict[str, Expr]:
    """The TIR of all that the ops need, by name."""
    made: dict[str, Expr] = {}
    for steps_ in {chain(op) for op in ops}:
        name = prefix + chain_name(steps_)
        made[name] = steps.chain(name, steps_)
    for step in {norm(op) for op in ops} - {""}:
        made[prefix + step] = steps.norm(prefix + step, step)
    if "int8" in families:
        made[f"{prefix}quantize"] = gemv_int8.quantize(f"{prefix}quantize")
    if "bf16" in families:
        made[f"{prefix}pack"] = gemm_bf16.pack(f"{prefix}pack")
    for bits, symmetric in kinds(ops):
        kind = kind_name(bits, symmetric)
        for word, rows in ROWS.items():
            name = f"{prefix}{word}_{kind}"
            if "exact" in families:
                made[name] = gemv_exact.gemv(name, bits, symmetric, rows, target.has(*VNNI))
            else:
                template = gemv_int8 if target.has(*VNNI) else gemv_avx2
                made[name] = template.gemv(name, bits, symmetric, rows)
        if "bf16" in families:
            name = f"{prefix}gemm_{kind}"
            made[name] = gemm_bf16.gemm(name, bits, symmetric, tiling(target))
    return dict(sorted(made.items()))


def generate(
    ops: Iterable[LinearOp], families: tuple[str, ...], target: CpuTarget, out: Path, prefix: str = ""
) -> None:
    """Compile to the object file ``out``; the prefix keeps apart the functions for several targets."""
    machine = tvm.target.Target({"kind": "llvm", "mcpu": target.mcpu, "mtriple": target.triple})
    with tvm.transform.PassContext(
        config={"tirx.disable_storage_rewrite": True}
    ):  # it would merge registers into one array
        compiled = tvm.compile(tvm.IRModule(functions(ops, families, target, prefix)), target=machine)

    def keep(_: str, files: list[str], **__: object) -> None:
        shutil.copy(next(file for file in files if file.endswith(".o")), out)

    compiled.export_library(str(out.with_suffix(".tvm.so")), fcompile=keep)
