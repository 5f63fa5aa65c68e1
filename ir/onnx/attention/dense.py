"""The standard's `Attention` as one op of ours, where a kernel serves it: its body is that op.

So nothing new is to be proven, and without a library the runtime computes what it did before.
"""

from collections.abc import Callable

import onnx_ir as ir

from qcc.ir.kernel.dense_op import DenseOp, parse_dense
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.onnx.file.domain import DOMAIN, VERSION, function

INPUTS = 4  # queries, keys, values and a mask
MASK = 3
MASK_RANKS = range(2, 5)
KNOWN = {"q_num_heads", "kv_num_heads", "scale", "is_causal", "softcap", "softmax_precision", "qk_matmul_output_mode"}
OPSET = 23


def write_dense(model: ir.Model, serves: Callable[[KernelOp], bool]) -> tuple[KernelOp, ...]:
    """Put ops of ours in the place of the standard's, beside those that are there already.

    Args:
        model: is edited.
        serves: there is a kernel for an op.

    Returns:
        The op of each attention.
    """
    found: list[KernelOp] = []
    for node in list(model.graph):
        written = parse_dense(node.op_type) if node.domain == DOMAIN else None
        op = written or _op(node)
        if op is None or not serves(op):
            continue
        found.append(op)
        if written is not None:
            continue
        reads = [*node.inputs[:MASK], *([_mask(node)] if op.masked else [])]
        scale = node.attributes.get_float("scale", op.attributes["scale"])
        made = ir.Node(DOMAIN, op.name, reads, [ir.AttrFloat32("scale", scale)], name=node.name)
        old, (new,) = node.outputs[0], made.outputs
        new.type, new.shape = old.type, old.shape
        model.graph.insert_before(node, made)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        new.name = old.name
        body = dense_function(op, model.opset_imports[""])
        model.functions.setdefault(body.identifier(), body)
        model.opset_imports.setdefault(DOMAIN, VERSION)
    return tuple(found)


def dense_function(op: DenseOp, opset: int) -> ir.Function:
    """Build the function; its inputs, outputs and attributes are the op's own."""
    how = f"q_num_heads: int = {op.heads}, kv_num_heads: int = {op.kept_heads}, is_causal: int = {int(op.causal)}"
    lines, mask = list[str](), ""
    if op.masked:  # the standard's op takes none that is the same for all rows
        lines = [
            "rows = Shape <start: int = 1, end: int = 2> (queries)",
            "columns = Shape <start: int = 1, end: int = 2> (keys)",
            "scores = Concat <axis: int = 0> (rows, columns)",
            "spread = Expand (mask, scores)",
        ]
        mask = ", spread"
    lines.append(f"y = Attention <{how}, scale: float = @scale> (queries, keys, values{mask})")
    return function(op.name, op.inputs, lines, ", ".join(op.outputs), max(opset, OPSET), "scale")


def _op(node: ir.Node) -> DenseOp | None:
    """The op that computes what a node does, if one does."""
    if (node.domain, node.op_type) != ("", "Attention") or set(node.attributes) - KNOWN or any(node.inputs[INPUTS:]):
        return None
    if any(one.uses() or one.is_graph_output() for one in node.outputs[1:]):
        return None
    number = node.attributes.get_int
    if node.attributes.get_float("softcap", 0.0) or number("softmax_precision", ir.DataType.FLOAT) != ir.DataType.FLOAT:
        return None
    heads, kept = number("q_num_heads", 0), number("kv_num_heads", 0)
    queries, keys, values = (_width(value) for value in node.inputs[:MASK])
    if not heads or not kept or heads % kept or not queries or queries % heads:
        return None
    mask = _mask(node)
    if {keys, values} != {queries // heads * kept} or not (mask is None or _ranked(mask)):
        return None
    return DenseOp(heads, kept, queries // heads, mask is not None, bool(number("is_causal", 0)))


def _width(value: ir.Value | None) -> int:
    """Of three axes of floats the last, where it is known; else 0."""
    if value is None or value.dtype != ir.DataType.FLOAT or value.shape is None or len(value.shape) != 3:
        return 0
    last = value.shape[-1]
    return last if isinstance(last, int) else 0


def _mask(node: ir.Node) -> ir.Value | None:
    """What a node hides, before it is spread: the kernel reads it so, and the body spreads it itself."""
    mask = node.inputs[MASK] if len(node.inputs) > MASK else None
    maker = None if mask is None else mask.producer()
    if maker is None or (maker.domain, maker.op_type) != ("", "Expand") or maker.inputs[0] is None:
        return mask
    return maker.inputs[0] if _ranked(maker.inputs[0]) else mask


def _ranked(mask: ir.Value) -> bool:
    known = mask.dtype in (ir.DataType.FLOAT, ir.DataType.BOOL)
    return known and mask.shape is not None and len(mask.shape) in MASK_RANKS
