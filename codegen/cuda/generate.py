"""From ops to PTX, the text that a driver compiles for its card. No CUDA toolkit is needed: LLVM writes it."""

import re
from collections.abc import Iterable
from pathlib import Path

import tvm  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.cpu.tir.emit import Expr
from qcc.codegen.cuda.processors import CudaProcessor
from qcc.codegen.cuda.product import VARIANTS, kernel
from qcc.codegen.target.interruption import held_back
from qcc.ir.kernel.op import LinearOp

MATH = Path(__file__).parent / "shim" / "math.ll"
SYNCHRONIZED = "s_tir.ThreadSync"  # kernels wait by themselves, where they have to
ENTRY = re.compile(r"\.visible \.func (\w+_kernel)\(")


def functions(ops: Iterable[LinearOp]) -> dict[str, Expr]:
    """The TIR of all kernels, by name."""
    named = ((op.name + variant.name, op, variant) for op in ops for variant in VARIANTS)
    return {name: kernel(name, op, variant) for name, op, variant in named}


def ptx(ops: Iterable[LinearOp], processor: CudaProcessor) -> str:
    """All kernels, each an entry of its name with ``_kernel`` behind."""
    tvm.register_global_func("tvm_callback_libdevice_path", lambda _: str(MATH), override=True)
    card = {"kind": "nvptx", "mcpu": processor.name}
    machine = tvm.target.Target(card, host={"kind": "llvm"})
    with held_back(), tvm.transform.PassContext(disabled_pass=[SYNCHRONIZED]):
        made = tvm.compile(tvm.IRModule(functions(ops)), target=machine)
    text = "".join(one.inspect_source("ptx") for one in made.mod.imports)
    return ENTRY.sub(r".visible .entry \1(", text)
