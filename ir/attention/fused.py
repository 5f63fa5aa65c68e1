"""Ops that are all of an attention: the standard's own, and those of the runtime."""

from dataclasses import replace
from itertools import zip_longest

from qcc.ir.attention.operands import Traced
from qcc.ir.attention.part import AttentionPart
from qcc.ir.attention.paths import ScoreStep, UntoldError
from qcc.ir.attention.trace import Tracer, TraceStep
from qcc.ir.graph.attention import Attention, Masking, Operand, Rotary
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Op
from qcc.ir.kernel.cached_op import CachedOp

_MANY = ("query", "key", "value", "bias", "key_mask", "added", "past_key", "past_value")
_GROUPED = (
    "query",
    "key",
    "value",
    "past_key",
    "past_value",
    "lengths",
    "total",
    "cos",
    "sin",
    "rows",
    "added",
    "sinks",
)
INPUTS = {"multi_head_attention": _MANY, "grouped_attention": _GROUPED}
"""What the ops of the runtime read, by function."""


def of_op(op: Op, tracer: Tracer) -> AttentionPart:
    """The standard's attention, to be compared with the formula.

    Raises:
        UntoldError: what it does is not known.
    """
    heads, scale, causal, cap = (op.attributes.get(name) for name in ("heads", "scale", "causal", "cap"))
    known = isinstance(heads, tuple) and isinstance(scale, float) and isinstance(cap, float)
    if not known or len(op.inputs) < 3 or any(op.inputs[6:]) or any(op.outputs[3:]):
        raise UntoldError("what the op does is not known")
    assert isinstance(heads, tuple)
    assert isinstance(scale, float)
    assert isinstance(cap, float)
    pasts, presents = _names(op.inputs[4:6], 2), _names(op.outputs[1:3], 2)
    if any(one and not other for one, other in zip(pasts, presents, strict=True)):
        raise UntoldError("it takes rows of earlier runs and gives none to later ones")
    whole = tracer.rank(op.inputs[0]) == 3
    queries = Traced(op.inputs[0], tuple(tracer.steps(op.inputs[0])), heads=heads[0] if whole else 0)
    keys, values = (
        _held(name, past, present, heads[1] if whole else 0, tracer)
        for name, past, present in zip(op.inputs[1:3], pasts, presents, strict=True)
    )
    masks = [name for name in op.inputs[3:4] if name]
    steps = tuple(ScoreStep("mask" if tracer.is_flag(name) else "add", "", name, True) for name in masks)
    part = AttentionPart(op.name, op.outputs[0], queries, keys, values, steps, scale=scale, heads=heads)
    reads = (op.name, 0), (op.name, 1)
    return replace(part, causal=bool(causal), cap=cap, reads=reads)


def _held(name: str, past: str, present: str, heads: int, tracer: Tracer) -> Traced:
    """Keys or values of an op, behind those of earlier runs."""
    steps = tuple(tracer.steps(name))
    if not past:
        return Traced(name, steps, heads=heads)
    return Traced(present, (TraceStep("past", name, present, past), *steps))


def of_runtime(graph: Graph, op: Op) -> Attention:
    """An op of the runtime, of which its definition says all.

    Raises:
        UntoldError: it does more than an attention.
    """
    heads, scale, cap = (op.attributes.get(name) for name in ("heads", "scale", "cap"))
    if op.function not in INPUTS or not isinstance(heads, tuple) or not isinstance(scale, float):
        raise UntoldError("projections are part of the op, or its sizes are not known")
    if op.attributes.get("smooth"):
        raise UntoldError("its softmax counts one score more, of zero, that is no value's")
    if any(op.outputs[3:]):
        raise UntoldError("the op returns its scores, too")
    names = INPUTS[op.function]
    read = dict(zip_longest(names, op.inputs[: len(names)], fillvalue=""))
    if read.get("bias"):
        raise UntoldError("the op adds biases to queries, keys and values")
    presents = _names(op.outputs[1:3], 2)
    queries, keys, values = (_operand(graph, op, read, at, presents) for at in range(3))
    masking = [Masking(read[name], kind) for name, kind in (("key_mask", "mask"), ("added", "bias")) if read.get(name)]
    causal = op.function == "grouped_attention" or op.attributes.get("causal")
    hidden = [Masking("", "window" if op.attributes.get("window") else "causal")] if causal else []
    found = (*hidden, *masking)
    bound = cap if isinstance(cap, float) and cap else None
    reads = ((op.name, 0), (op.name, 1)) if all(op.inputs[1:3]) else ()
    sinks = read.get("sinks", "")
    return Attention(op.name, op.outputs[0], queries, keys, values, scale, found, bound, sinks, reads=reads)


def of_cached(op: Op, ours: CachedOp) -> Attention:
    """An op of ours, whose name says what it reads; keys and values as they are kept."""
    read, made = dict(zip(ours.inputs, op.inputs, strict=True)), dict(zip(ours.outputs, op.outputs, strict=True))
    queries = Operand(read["queries"], ours.heads, ours.channels, "bs(hd)")
    keys, values = (
        Operand(
            read[name],
            ours.kept_heads,
            ours.channels,
            "bs(hd)",
            past=read[f"past_{name}"],
            present=made[f"present_{name}"],
        )
        for name in ("keys", "values")
    )
    return Attention(op.name, made["y"], queries, keys, values, 1.0, (Masking(read["bias"], "bias"),))


def _operand(graph: Graph, op: Op, read: dict[str, str], at: int, presents: tuple[str, ...]) -> Operand:
    """Queries, keys or values; those that are packed are part of the first input."""
    heads = op.attributes["heads"]
    assert isinstance(heads, tuple)
    name, count = op.inputs[at] or op.inputs[0], heads[min(at, 1)]
    shape = graph.value(name).shape or ()
    packed = 0 if all(op.inputs[1:3]) else heads[0] + 2 * heads[1]
    size = shape[-1] if shape else None
    width = size // (packed or count) if isinstance(size, int) and len(shape) == 3 else size
    layout = "packed" if packed else ("bs(hd)" if len(shape) == 3 else "bhsd")
    kind, past = op.attributes.get("rotary"), read.get(("", "past_key", "past_value")[at], "")
    turns = at < 2 and isinstance(kind, str) and kind != "none"
    table = graph.value(read["cos"]).shape or () if turns else ()
    turned = 2 * table[-1] if table and isinstance(table[-1], int) else 0
    rotary = Rotary(str(kind), turned, read["cos"], read["sin"]) if turns else None
    if not isinstance(width, int):
        raise UntoldError("how many channels a head has is not known")
    return Operand(name, count, width, layout, rotary, past, presents[at - 1] if at else "")


def _names(found: tuple[str, ...], count: int) -> tuple[str, ...]:
    return (*found, *[""] * (count - len(found)))
