"""The tables of the shim, in C: for each target what its code needs, and each op's functions."""

from collections.abc import Sequence

from qcc.codegen.library.spec import MANY_ROWS, chain, chain_name, kind_of, kinds, norm, served, variants
from qcc.codegen.target.target import CpuTarget
from qcc.codegen.target.tiling import tiling
from qcc.ir.kernel.op import LinearOp


def prefix(index: int) -> str:
    """What the names of a target's functions begin with."""
    return f"t{index}_"


def header(ops: Sequence[LinearOp], targets: Sequence[CpuTarget], activations: str) -> str:
    """Write ``kernels.h``; the types are those of ``shim.h``."""
    lines = [f"enum {{ QCC_OPS = {len(ops)} }};"]
    for index, target in enumerate(targets):
        lines += _target(ops, target, variants(target, activations), prefix(index))
    entries = ", ".join(
        f"{{{prefix(index)}needs, {prefix(index)}specs, {len(served(ops, variants(target, activations)))}}}"
        for index, target in enumerate(targets)
    )
    return "\n".join([*lines, f"static const Target targets[] = {{{entries}}};", ""])


def _target(ops: Sequence[LinearOp], target: CpuTarget, families: tuple[str, ...], start: str) -> list[str]:
    lines, cuts, ops = [], tiling(target), served(ops, families)
    for kind in kinds(ops):
        found = {field: start + name for field, name in kind.functions(families).items()}
        lines += [_declaration(name) for name in found.values()]
        fields = [f".{field} = {_symbol(name)}" for field, name in found.items()]
        fields += [f".rounds = {int(kind.rounds(families))}", f".many = {MANY_ROWS[kind.many(families)]}"]
        fields += [f".depth = {cuts.depth}", f".panel = {cuts.panel_bytes}", f".block = {cuts.block}"]
        fields.append(f".chunks = {2 if kind.many(families) == 'int8' else 1}")
        lines.append(f"static const Family {start}{kind.name} = {{{', '.join(fields)}}};")
    later = {name for op in ops for name in (chain_name(op), norm(op)) if name}
    lines += [_declaration(start + name) for name in sorted(later)]
    needs = "".join(f'"{flag}", ' for flag in target.features)
    lines.append(f"static const char *const {start}needs[] = {{{needs}NULL}};")
    return [*lines, f"static const Spec {start}specs[] = {{", *(_spec(op, start) for op in ops), "};"]


def _spec(op: LinearOp, start: str) -> str:
    operands = "".join(kind[0] for _, kind in op.step_inputs)
    chained = len(LinearOp(op.bits, steps=chain(op)).step_inputs)
    functions = [f"{_symbol(start)}{name}" if name else "NULL" for name in (chain_name(op), norm(op))]
    fields = [
        f'"{op.name}"', op.bits, op.group or 0, int(op.symmetric), int(op.static), f'"{operands}"', chained,
        int(not chain(op)), len(op.outputs) - 1, *functions, f"&{start}{kind_of(op).name}", int(op.pointwise),
    ]  # fmt: skip
    return f"  {{{', '.join(map(str, fields))}}},"


def _symbol(name: str) -> str:
    return f"__tvm_ffi_{name}"


def _declaration(name: str) -> str:
    return f"int {_symbol(name)}(void *, const Any *, int, Any *);"
