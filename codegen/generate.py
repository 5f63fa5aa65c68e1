"""From kinds of codes to an object file: the templates, compiled by TVM."""

import shutil
from pathlib import Path

import tvm  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen import gemm_bf16, gemv_exact, gemv_int8
from qcc.codegen.emit import Expr
from qcc.codegen.target import VNNI, CpuTarget
from qcc.codegen.tiling import tiling

ROWS = {"one": 1, "four": 4}


def functions(kinds: list[tuple[int, bool]], families: tuple[str, ...], target: CpuTarget) -> dict[str, Expr]:
    """The TIR of every kind ``(bits, symmetric)`` of the families, by name."""
    made = {"quantize": gemv_int8.quantize("quantize")} if "int8" in families else {}
    if "bf16" in families:
        made["pack"] = gemm_bf16.pack("pack")
    for bits, symmetric in kinds:
        kind = f"int{bits}_{'sym' if symmetric else 'asym'}"
        for name, rows in ROWS.items():
            function = f"{name}_{kind}"
            if "int8" in families:
                made[function] = gemv_int8.gemv(function, bits, symmetric, rows)
            else:
                made[function] = gemv_exact.gemv(function, bits, symmetric, rows, target.has(*VNNI))
        if "bf16" in families:
            made[f"gemm_{kind}"] = gemm_bf16.gemm(f"gemm_{kind}", bits, symmetric, tiling(target))
    return made


def generate(kinds: list[tuple[int, bool]], families: tuple[str, ...], target: CpuTarget, out: Path) -> None:
    """Compile to the object file ``out``."""
    machine = tvm.target.Target({"kind": "llvm", "mcpu": target.mcpu, "mtriple": target.triple})
    with tvm.transform.PassContext(
        config={"tirx.disable_storage_rewrite": True}
    ):  # it would merge registers into one array
        compiled = tvm.compile(tvm.IRModule(functions(kinds, families, target)), target=machine)

    def keep(_: str, files: list[str], **__: object) -> None:
        shutil.copy(next(file for file in files if file.endswith(".o")), out)

    compiled.export_library(str(out.with_suffix(".tvm.so")), fcompile=keep)
