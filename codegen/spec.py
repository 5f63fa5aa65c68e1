"""What an op asks of a library for a processor: which functions, by name, and which families of templates."""

from collections.abc import Iterable

from qcc.codegen.target import AVX2, VNNI, CpuTarget
from qcc.ir.kernel_op import KEEP, STEPS, LinearOp

Kind = tuple[int, bool]  # bits of a code, and whether there is no zero point
SHARED = {"int8": ("quantize",), "bf16": ("pack",)}
EACH = {"exact": ("one", "four"), "int8": ("one", "four"), "bf16": ("gemm",)}


def variants(target: CpuTarget, activations: str) -> tuple[str, ...]:
    """The families of templates that serve a target, the one for few rows first."""
    if activations == "exact" or not target.has(*AVX2):
        return ("exact",)
    return ("int8", "bf16") if target.has(*VNNI, "amx_bf16") else ("int8",)


def kinds(ops: Iterable[LinearOp]) -> list[Kind]:
    """Those that the ops need functions for."""
    return sorted({(op.bits, op.symmetric) for op in ops})


def kind_name(bits: int, symmetric: bool) -> str:
    """How names of functions spell a kind."""
    return f"int{bits}_{'sym' if symmetric else 'asym'}"


def norm(op: LinearOp) -> str:
    """The norm that ends an op's steps, if one does."""
    return op.steps[-1] if op.steps and STEPS[op.steps[-1]].whole else ""


def chain(op: LinearOp) -> tuple[str, ...]:
    """The steps that one function takes value by value: all before a norm."""
    return tuple(step for step in op.steps if step not in (KEEP, norm(op)))


def chain_name(steps: tuple[str, ...]) -> str:
    """The function of a chain; without steps it copies."""
    return "_".join(("steps", *steps))
