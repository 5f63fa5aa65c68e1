"""The tables of the shim, in C: for each target what its code needs, and each op's functions."""

from collections.abc import Iterable, Sequence

import numpy as np

from qcc.codegen.cpu.library.spec import (
    apart,
    chain,
    chain_name,
    functions_of,
    norm,
    products,
    sequences,
    served,
    step_chains,
)
from qcc.codegen.cpu.processors.processors import CpuProcessor
from qcc.codegen.cpu.product import linear_ops, product_of
from qcc.codegen.cpu.templates import templates
from qcc.codegen.target.target import Arithmetic
from qcc.codegen.tir.codes import codes_of
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.grid import TableGrid
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.op import KEEP, Leaf, LinearOp, step_inputs
from qcc.ir.kernel.sequence_op import SequenceOp


def prefix(index: int) -> str:
    """What the names of a target's functions begin with."""
    return f"t{index}_"


def header(ops: Sequence[KernelOp], targets: Sequence[CpuProcessor], activations: Arithmetic) -> str:
    """Write ``kernels.h``; the types are those of ``shim.h``."""
    every = {*ops, *(one for op in ops for one in linear_ops(op))}
    lines = [f"enum {{ QCC_OPS = {len(every)} }};"]
    for index, target in enumerate(targets):
        lines += _target(ops, target, activations, prefix(index))
    entries = ", ".join(
        f"{{{prefix(index)}needs, {prefix(index)}specs, {len(served(ops, target, activations))}, "
        f"{prefix(index)}sequences, {len(sequences(ops, target, activations))}, "
        f"{prefix(index)}apart, {len(apart(ops, target, activations))}}}"
        for index, target in enumerate(targets)
    )
    return "\n".join([*lines, f"static const Target targets[] = {{{entries}}};", ""])


def _target(given: Sequence[KernelOp], target: CpuProcessor, activations: Arithmetic, start: str) -> list[str]:
    lines, cuts, ops = [], target.tiling, served(given, target, activations)
    others = apart(given, target, activations)
    for product in products(ops):
        found = {word: start + name for word, (name, _) in functions_of(product, target, activations).items()}
        lines += [_declaration(name) for name in found.values()]
        facts = {"depth": cuts.depth, "panel": cuts.panel_bytes, "block": cuts.block, "meets": cuts.strip_bytes}
        facts["halves"] = int(product.reads_halves(target))
        for template in templates(product, target, activations):
            facts |= template.facts(product)
        fields = [f".{word} = {_symbol(name)}" for word, name in found.items()]
        fields += [f".{fact} = {number}" for fact, number in facts.items()]
        lines.append(f"static const Family {start}{product.name} = {{{', '.join(fields)}}};")
    lines += [f"static const float {start}{name}[] = {{{text}}};" for name, text in _tables(ops).items()]
    later = {*step_chains(ops), *map(norm, ops)} - {""}
    later |= {name for op, one in others for name in one.names(op, target) if name}
    lines += [_declaration(start + name) for name in sorted(later)]
    needs = "".join(f'"{flag}", ' for flag in target.features)
    lines.append(f"static const char *const {start}needs[] = {{{needs}NULL}};")
    for at, one in enumerate(ops):
        members = ", ".join(_part(part, start) for part in one.members)
        lines.append(f"static const Member {start}parts{at}[] = {{{members}}};")
    specs = (_spec(one, start, f"{start}parts{at}") for at, one in enumerate(ops))
    lines += [f"static const Spec {start}specs[] = {{", *specs, "  {0}};"]
    lines += _sequences(sequences(given, target, activations), ops, start)
    for at, (op, maker) in enumerate(others):
        called = [_symbol(start + name) if name else "NULL" for name in maker.names(op, target)]
        row = ", ".join(map(str, (f'"{op.name}"', *maker.fields(op, target, called))))
        lines.append(f"static const {maker.row} {start}apart{at} = {{{row}}};")
    rows = (f"  {{&{start}apart{at}, {one.serve}}}," for at, (_, one) in enumerate(others))
    return [*lines, f"static const Apart {start}apart[] = {{", *rows, "  {0}};"]


def _tables(ops: Sequence[LinearOp]) -> dict[str, str]:
    """The numbers of grids that are tables, of weights and of scales, as C has them."""
    grids = {grid.name: grid for op in ops for grid in _grids(op.encoding) if grid is not None}
    return {name: ", ".join(map(_number, np.nan_to_num(grids[name].table))) for name in sorted(grids)}


def _grids(encoding: Leaf) -> tuple[TableGrid | None, TableGrid | None]:
    """The tables of the codes and of the scales, where they are such."""
    if not isinstance(encoding, Blocked):
        return None, None
    scales = None if encoding.scale is None else encoding.scales
    pair = encoding.grid, scales.grid if isinstance(scales, Blocked) else None
    codes, scale = (grid if isinstance(grid, TableGrid) else None for grid in pair)
    return codes, scale


def _part(op: LinearOp, start: str) -> str:
    """A product of an op."""
    operands = len(step_inputs(chain(op)))
    return f"{{{_symbol(start)}{chain_name(op)}, {operands}, {int(not chain(op))}}}"


def _spec(op: LinearOp, start: str, parts: str) -> str:
    operands = "".join(kind[0] for one in op.members for _, kind in one.step_inputs)
    last = f"{_symbol(start)}{norm(op)}" if norm(op) else "NULL"
    tables = [f"{start}{grid.name}" if grid else "NULL" for grid in _grids(op.encoding)]
    codes = codes_of(op.encoding)
    fields = [
        f'"{op.name}"', codes.bits, op.group or 0, int(not codes.stored_zero), int(op.static), *tables,
        f'"{operands}"', parts, len(op.members), int(op.chained), int(KEEP in op.steps), last,
        f"&{start}{product_of(op).name}", int(op.pointwise), *(op.tile or (0, 0)),
    ]  # fmt: skip
    return f"  {{{', '.join(map(str, fields))}}},"


def _sequences(found: Iterable[SequenceOp], ops: Sequence[LinearOp], start: str) -> list[str]:
    """Each by the rows of both products."""
    places = {one: f"{start}specs + {at}" for at, one in enumerate(ops)}
    rows = (f'  {{"{op.name}", {places[op.first]}, {places[op.second]}}},' for op in found)
    return [f"static const Sequence {start}sequences[] = {{", *rows, "  {0}};"]


def _number(number: float) -> str:
    """A float as C reads it, to the last bit."""
    return f"{float(number).hex()}f"


def _symbol(name: str) -> str:
    return f"__tvm_ffi_{name}"


def _declaration(name: str) -> str:
    return f"int {_symbol(name)}(void *, const Any *, int, Any *);"
