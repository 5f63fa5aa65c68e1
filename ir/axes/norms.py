"""What ops that are several in one say of axes: norms with gain and bias, attention with its two products."""

from collections.abc import Sequence

from qcc.ir.axes.trace import INNER, ONE, Holder, Label, Labels, Law, Trace
from qcc.ir.graph.ops import Op
from qcc.ir.vocabulary.find import OPS


def norm(trace: Trace, op: Op) -> None:
    """A normalisation of any kind."""
    shape = trace.shape(op.inputs[0])
    known = OPS.get((op.kind, op.function))
    rule = _NORMS.get(known.over) if known is not None else None
    if shape is None or rule is None or len([name for name in op.outputs if name]) > 1:
        trace.opaque(op)
    else:
        rule(trace, op, len(shape))


def _layer_norm(trace: Trace, op: Op, rank: int) -> None:
    first = op.attributes.get("axis")
    if not isinstance(first, int) or first < 0:
        trace.opaque(op)
        return
    normalised = range(first, rank)
    inner = _normalise(trace, op, list(range(rank)), normalised, centred=_is_centred(op))
    _gain_and_bias(trace, op, inner, list(range(rank)), list(normalised), {})


def _is_centred(op: Op) -> bool:
    """A mean is subtracted."""
    return any(step.centred for step in OPS[op.kind, op.function].steps)


def _lp_norm(trace: Trace, op: Op, rank: int) -> None:
    labels = Labels(trace, op)
    source = labels.read(trace.place(op, 0), range(rank))
    axis = op.attributes.get("axis")
    chosen = [axis] if isinstance(axis, int) else []
    labels.relate(labels.make(op.outputs[0], range(rank)), ((source, 1),), law=Law.NORMALISED, normalised=chosen)


def _batch_norm(trace: Trace, op: Op, rank: int) -> None:
    names: list[Label] = ["batch", "channel", *range(2, rank)][:rank]
    labels = Labels(trace, op)
    source = labels.read(trace.place(op, 0), names)
    for position in range(3, len(op.inputs)):
        if op.inputs[position]:
            labels.read(trace.place(op, position), ("channel",))
    inner = _inner(op)
    labels.relate(labels.make(inner.name, names), ((source, 1),), law=Law.OTHER)
    _gain_and_bias(trace, op, inner, names, ["channel"], {})


def _group_norm(trace: Trace, op: Op, rank: int) -> None:
    groups, shape = op.attributes.get("groups"), trace.shape(op.inputs[0]) or ()
    channels = shape[1] if rank > 1 else None
    if not isinstance(groups, int) or not isinstance(channels, int) or channels % groups:
        trace.opaque(op)
        return
    names: list[Label] = ["batch", ("group", "channel"), *range(2, rank)]
    sizes: dict[Label, int] = {"group": groups, "channel": channels // groups}
    labels = Labels(trace, op, sizes)
    inner, source = _inner(op), labels.read(trace.place(op, 0), names)
    labels.relate(labels.make(inner.name, names), ((source, 1),), law=Law.OTHER, normalised=["channel"])
    _gain_and_bias(trace, op, inner, names, [("group", "channel")], sizes)


def _instance_norm(trace: Trace, op: Op, rank: int) -> None:
    names: list[Label] = ["batch", "channel", *range(2, rank)]
    labels = Labels(trace, op)
    inner, source = _inner(op), labels.read(trace.place(op, 0), names)
    labels.relate(labels.make(inner.name, names), ((source, 1),), law=Law.OTHER)
    _gain_and_bias(trace, op, inner, names, ["channel"], {})


def _normalise(trace: Trace, op: Op, names: list[int], normalised: Sequence[int], centred: bool) -> Holder:
    labels = Labels(trace, op)
    inner, source = _inner(op), labels.read(trace.place(op, 0), names)
    output = labels.make(inner.name, names)
    labels.relate(output, ((source, 1),), law=Law.NORMALISED, normalised=normalised, centred=centred)
    return inner


def _inner(op: Op) -> Holder:
    """What a norm makes before its gain."""
    return Holder(f"{op.outputs[0]}{INNER}normalised")


def _gain_and_bias(
    trace: Trace, op: Op, inner: Holder, names: Sequence[Label], own: Sequence[Label], sizes: dict[Label, int]
) -> None:
    labels = Labels(trace, op, sizes)
    factors, terms = [(labels.read(inner, names), 1)], []
    for position in (1, 2):
        name = op.inputs[position] if len(op.inputs) > position else ""
        if not name:
            continue
        shape = trace.shape(name)
        if shape is None or len(shape) != len(own):
            trace.opaque(op)
            return
        number = labels.read(trace.place(op, position), own)
        if position == 1:
            factors.append((number, 1))
        else:
            terms.append(number)
    labels.relate(labels.make(op.outputs[0], names), factors, terms)


def attention(trace: Trace, op: Op) -> None:
    """Softmax of queries times keys, times values; several query heads may share one of keys and values."""
    heads, shapes = op.attributes.get("heads"), [trace.shape(name) for name in op.inputs[:3]]
    ranks = {len(shape) for shape in shapes if shape is not None}
    masked = len(op.inputs) > 3 and bool(op.inputs[3])
    mask = trace.shape(op.inputs[3]) if masked else None
    plain = op.function == "attention" and len(shapes) == 3 and None not in shapes and len(op.inputs) <= 4
    plain = plain and len(list(filter(None, op.outputs))) == 1
    plain = plain and (not masked or (mask is not None and len(mask) <= 4))
    if not plain or not isinstance(heads, tuple) or len(heads) != 2 or heads[0] % heads[1] or ranks not in ({3}, {4}):
        trace.opaque(op)
        return
    sizes: dict[Label, int] = {"head": heads[1], "repeat": heads[0] // heads[1]}
    whole = ranks == {3}
    for name, shape in zip(("key", "key", "value"), shapes, strict=True):
        width = shape[-1] if shape else None
        if not isinstance(width, int):
            trace.opaque(op)
            return
        share = heads[0] if name == "key" and shape is shapes[0] else heads[1]
        sizes.setdefault(name, width // share if whole else width)

    def laid_out(many: bool, rows: str, columns: str) -> list[Label]:
        lead = ("head", "repeat") if many else ("head",)
        return ["batch", rows, (*lead, columns)] if whole else ["batch", lead, rows, columns]

    scores = Holder(f"{op.outputs[0]}{INNER}scores")
    labels = Labels(trace, op, sizes)
    queries = labels.read(trace.place(op, 0), laid_out(True, "row", "key"))
    keys = labels.read(trace.place(op, 1), laid_out(False, "column", "key"))
    mixed = ["batch", ("head", "repeat"), "row", "column"]
    counted: list[Label] = ["key", *(("head", "repeat") if whole else ())]  # the scale follows from them
    labels.relate(labels.make(scores.name, mixed), ((queries, 1), (keys, 1)), normalised=counted)
    if op.attributes.get("causal") != 0:  # the order of rows and columns tells which are masked
        for axis in (2, 3):
            trace.hold(scores, axis, "a causal mask knows its order")
    weighted = Holder(f"{op.outputs[0]}{INNER}weights")
    softened = Labels(trace, op, sizes)
    before = softened.read(scores, mixed)
    if mask is not None:
        names = mixed[len(mixed) - len(mask) :]
        spread = [ONE if size == 1 else name for size, name in zip(mask, names, strict=True)]
        softened.read(trace.place(op, 3), spread)
    softened.relate(softened.make(weighted.name, mixed), ((before, 1),), law=Law.OTHER, normalised=["column"])
    last = Labels(trace, op, sizes)
    shares = last.read(weighted, mixed)
    values = last.read(trace.place(op, 2), laid_out(False, "column", "value"))
    last.relate(last.make(op.outputs[0], laid_out(True, "row", "value")), ((shares, 1), (values, 1)))


_NORMS = {
    "last": _layer_norm,
    "batch": _batch_norm,
    "group": _group_norm,
    "instance": _instance_norm,
    "one": _lp_norm,
}
"""By what a norm is over."""
