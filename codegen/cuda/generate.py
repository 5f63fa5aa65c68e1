"""From ops to PTX, the text that a driver compiles for its card. No CUDA toolkit is needed: LLVM writes it."""

import re
from collections.abc import Iterable
from pathlib import Path

import tvm  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.cuda.processors import CudaProcessor
from qcc.codegen.cuda.product import kernel, variants
from qcc.codegen.target.interruption import held_back
from qcc.codegen.tir.emit import Expr
from qcc.ir.kernel.op import LinearOp

MATH = Path(__file__).parent / "shim" / "math.ll"
SYNCHRONIZED = "s_tir.ThreadSync"  # kernels wait by themselves, where they have to
SPLIT, KERNEL = "SplitHostDevice", "_kernel"
ENTRY = re.compile(r"\.visible \.func (\w+_kernel)\(")


def functions(ops: Iterable[LinearOp]) -> dict[str, Expr]:
    """The TIR of all kernels, by name."""
    named = ((op.name + variant.name, op, variant) for op in ops for variant in variants(op))
    return {name: kernel(name, op, variant) for name, op, variant in named}


def ptx(ops: Iterable[LinearOp], processor: CudaProcessor) -> tuple[str, dict[str, list[str]]]:
    """All kernels, each an entry of its name with ``_kernel`` behind, and the names of each one's parameters."""
    tvm.register_global_func("tvm_callback_libdevice_path", lambda _: str(MATH), override=True)
    card = {"kind": "nvptx", "mcpu": processor.name}
    machine = tvm.target.Target(card, host={"kind": "llvm"})
    order = _Order()
    with held_back(), tvm.transform.PassContext(disabled_pass=[SYNCHRONIZED], instruments=[order]):
        made = tvm.compile(tvm.IRModule(functions(ops)), target=machine)
    text = "".join(one.inspect_source("ptx") for one in made.mod.imports)
    return ENTRY.sub(r".visible .entry \1(", text), order.found


@tvm.instrument.pass_instrument
class _Order:
    """The names of kernels' parameters, which TVM orders as it likes."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def run_after_pass(self, module: Expr, info: Expr) -> None:
        """See what was cut out of the functions of the host."""
        if info.name.endswith(SPLIT):
            for name, function in module.functions_items():
                if name.name_hint.endswith(KERNEL):
                    names = [parameter.name.removesuffix("_ptr") for parameter in function.params]
                    self.found[name.name_hint.removesuffix(KERNEL)] = names
