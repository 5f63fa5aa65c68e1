"""What an op asks of a library for a processor: which functions, by name, and which families of templates."""

from collections.abc import Iterable
from dataclasses import dataclass

from qcc.codegen.target.target import AMX, AVX2, DOTPROD, CpuTarget
from qcc.ir.kernel.op import KEEP, STEPS, LinearOp

MANY_ROWS = {"bf16": 2, "int8": 5, "codes": 11}
"""Rows from which a matrix product is faster than rows by fours: of bfloat16 weights, of codes that AMX multiplies as
they are, of codes that are decoded to bfloat16. Measured at 1024x1024, 384x1536 and 1536x384 on Sapphire Rapids."""


@dataclass(frozen=True, order=True)
class FunctionKey:
    """What ops share functions: the bits of a code, no zero point, one scale for all inputs, a step of these."""

    bits: int
    symmetric: bool
    channel: bool
    pointwise: bool = False
    static: bool = False

    @property
    def name(self) -> str:
        """How names of functions spell it."""
        if self.pointwise:
            return "conv1x1"
        weight = LinearOp(self.bits, None if self.channel or self.bits == 16 else 32, self.symmetric).stored
        return weight + "_static" * self.static

    def rounds(self, families: tuple[str, ...]) -> bool:
        """Few rows are rounded to int8."""
        return self.bits < 16 and "int8" in families

    def functions(self, families: tuple[str, ...]) -> dict[str, str]:
        """What the shim calls for it, by the shim's word: the function's name."""
        if self.pointwise:
            return {"pack": "pack_conv1x1"} if "amx" in families else {}
        found = {"one": f"one_{self.name}", "four": f"four_{self.name}"}
        if self.static:
            found["quantize"] = "quantize_static" if self.rounds(families) else "round_static"
        elif self.rounds(families):
            found["quantize"] = "quantize"
        if "amx" in families:
            pack = "static" if self.static else "int8" if self.many(families) == "int8" else "bf16"
            found |= {"pack": f"pack_{pack}", "gemm": f"gemm_{self.name}"}
        return found

    def many(self, families: tuple[str, ...]) -> str:
        """How many rows are multiplied where AMX is, a key of `MANY_ROWS`."""
        if self.bits == 16:
            return "bf16"
        return "int8" if self.static or (self.channel and "int8_rows" in families) else "codes"


def variants(target: CpuTarget, activations: str) -> tuple[str, ...]:
    """The families of templates that serve a target, the one for few rows first."""
    if activations == "exact" or not (target.has(*AVX2) or target.has(*DOTPROD)):
        return ("exact",)
    if not target.has(*AMX):
        return ("int8",)
    return ("int8", "amx", "int8_rows") if activations == "int8" else ("int8", "amx")


def kinds(ops: Iterable[LinearOp]) -> list[FunctionKey]:
    """Those that the ops need functions for."""
    return sorted({kind_of(op) for op in ops})


def kind_of(op: LinearOp) -> FunctionKey:
    """The kind whose functions an op calls."""
    if op.pointwise:
        return FunctionKey(16, True, True, pointwise=True)  # their codes are decoded when a layer is made
    return FunctionKey(op.bits, op.symmetric, op.group is None, static=op.static)


def served(ops: Iterable[LinearOp], families: tuple[str, ...]) -> list[LinearOp]:
    """Those that the families have functions for."""
    return [op for op in ops if kind_of(op).functions(families)]


def norm(op: LinearOp) -> str:
    """The norm that ends an op's steps, if one does."""
    return op.steps[-1] if op.steps and STEPS[op.steps[-1]].whole else ""


def chain(op: LinearOp) -> tuple[str, ...]:
    """The steps that one function takes value by value: all before a norm."""
    return tuple(step for step in op.steps if step not in (KEEP, norm(op)))


def chain_name(op: LinearOp) -> str:
    """The function of an op's chain; without steps it copies. A convolution's multiplies, too."""
    return "_".join(("conv1x1" if op.pointwise else "steps", *chain(op)))
