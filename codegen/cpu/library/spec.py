"""What an op asks of a library for a processor: which functions, by name."""

from collections.abc import Collection, Iterable
from typing import Any

from qcc.codegen.cpu.apart import ApartTemplate
from qcc.codegen.cpu.processors.processors import CpuProcessor
from qcc.codegen.cpu.product import CpuTemplate, KernelProduct, linear_ops, product_of
from qcc.codegen.cpu.templates import APART, templates
from qcc.codegen.target.target import Arithmetic
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.op import KEEP, STEPS, LinearOp
from qcc.ir.kernel.sequence_op import SequenceOp


def products(ops: Iterable[LinearOp]) -> list[KernelProduct]:
    """Those that the ops need functions for."""
    return sorted({product_of(op) for op in ops}, key=lambda one: one.name)


def functions_of(
    product: KernelProduct, processor: CpuProcessor, activations: str
) -> dict[str, tuple[str, CpuTemplate]]:
    """What the shim calls for a product, by the shim's word: the function's name, and the template that makes it."""
    return {
        word: (name, template)
        for template in templates(product, processor, activations)
        for word, name in template.functions(product).items()
    }


def served(ops: Iterable[KernelOp], processor: CpuProcessor, activations: str) -> list[LinearOp]:
    """The products that there are templates for, those of sequences among them."""
    every = {one for op in ops for one in linear_ops(op)}
    found = (op for op in every if templates(product_of(op), processor, activations))
    return sorted(found, key=lambda op: op.name)


def sequences(ops: Collection[KernelOp], processor: CpuProcessor, activations: str) -> list[SequenceOp]:
    """Those whose products there are templates for."""
    have = {*served(ops, processor, activations)}
    return [op for op in ops if isinstance(op, SequenceOp) and have.issuperset(op.members)]


def apart(
    ops: Iterable[KernelOp], processor: CpuProcessor, activations: Arithmetic
) -> list[tuple[KernelOp, ApartTemplate[Any]]]:
    """The ops that are no products, each with the template that makes it."""
    found = ((op, template) for op in ops for template in APART if template.serves(op, processor, activations))
    return list(found)


def norm(op: LinearOp) -> str:
    """The norm that ends an op's steps, if one does."""
    return op.steps[-1] if op.steps and STEPS[op.steps[-1]].whole else ""


def chain(op: LinearOp) -> tuple[str, ...]:
    """The steps that one function takes value by value: all before a norm."""
    return tuple(step for step in op.steps if step not in (KEEP, norm(op)))


def chain_name(op: LinearOp) -> str:
    """The function of a product's chain; without steps it copies. A convolution's multiplies, too."""
    return "_".join(("conv1x1" if op.pointwise else "steps", *chain(op)))


def step_chains(ops: Iterable[LinearOp]) -> dict[str, LinearOp]:
    """The functions of all chains, each with a product that has it."""
    return {chain_name(one): one for op in ops for one in op.members}
