"""What ops that only move numbers say of axes: they carry channels from one axis to another."""

from collections.abc import Sequence

from qcc.ir.axes.dims import Dim, concatenation, cut, every, factors, product, unify
from qcc.ir.axes.trace import Holder, Law, Relation, Size, Trace, Track, carry
from qcc.ir.graph.ops import Op

MovedFrom = tuple[Holder, tuple[Dim, ...]]
_BACKWARDS = "a slice is taken that runs backwards or has no known bounds"


def reshape(trace: Trace, op: Op) -> None:
    """Axes split into factors, or made of them."""
    source = _source(trace, op)
    result = trace.shape(op.outputs[0])
    sizes = op.attributes.get("sizes")
    if op.function == "squeeze":
        _squeeze(trace, op)
    elif op.function == "unsqueeze":
        _unsqueeze(trace, op)
    elif op.function == "expand":
        _expand(trace, op)
    elif source is None or (result is None and not isinstance(sizes, tuple)):
        trace.opaque(op, f"`{op.function}` of unknown size")
    else:
        _reshape(trace, op, source, _merged(result, sizes if isinstance(sizes, tuple) else ()))


def transpose(trace: Trace, op: Op) -> None:
    """Axes in another order."""
    source, perm = _source(trace, op), op.attributes.get("perm")
    if source is None or not isinstance(perm, tuple) or len(perm) != len(source[1]):
        trace.opaque(op)
        return
    place, dims = source
    order = [int(axis) for axis in perm]
    output = trace.give(op.outputs[0], (dims[axis] for axis in order))
    carry(trace, op, place, output, ((dims[before], before, after) for after, before in enumerate(order)))


def concat(trace: Trace, op: Op) -> None:
    """Values one behind the other."""
    axis = op.attributes.get("axis")
    places = [trace.place(op, position) for position in range(len(op.inputs))]
    all_dims = [trace.axes(place) for place in places]
    dims = [one for one in all_dims if one is not None]
    rank = len(dims[0]) if dims else 0
    alike = len(dims) == len(all_dims) and all(len(other) == rank for other in dims)
    if not alike or not isinstance(axis, int) or not 0 <= axis < rank:
        trace.opaque(op)
        return
    for other in dims[1:]:
        for at in range(rank):
            if at != axis:
                unify(other[at], dims[0][at])
    joined = concatenation(one[axis] for one in dims)
    output = trace.give(op.outputs[0], (joined if at == axis else dims[0][at] for at in range(rank)))
    for place, one in zip(places, dims, strict=True):
        carry(trace, op, place, output, ((one[at], at, at) for at in range(rank)))


def split(trace: Trace, op: Op) -> None:
    """Parts of an axis."""
    source, axis, sizes = _source(trace, op), op.attributes.get("axis"), op.attributes.get("sizes")
    if source is None or not isinstance(axis, int) or not 0 <= axis < len(source[1]):
        trace.opaque(op)
        return
    place, dims = source
    single = op.function == "unbind"
    if single:
        sizes = (1,) * len(op.outputs)
    if not isinstance(sizes, tuple) or len(sizes) < len(op.outputs) or min(map(int, sizes), default=-1) < 0:
        trace.opaque(op)
        return
    at = 0
    for name, size in zip(op.outputs, map(int, sizes), strict=False):
        if name:
            _take(trace, op, name, (place, dims), axis, cut(dims[axis], at, at + size), dropped=single)
        at += size


def gather(trace: Trace, op: Op) -> None:
    """Slices, padding, and elements by number."""
    rule = {"slice": _slice, "pad": _pad, "gather": _gather, "gather_nd": _gather}.get(op.function)
    if rule is None or (op.function == "gather_nd" and "axis" not in op.attributes):
        trace.opaque(op, f"`{op.function}` picks elements by number")
    else:
        rule(trace, op)


def _slice(trace: Trace, op: Op) -> None:
    source = _source(trace, op)
    axes, starts, ends, steps = (op.attributes.get(name) for name in ("axes", "starts", "ends", "steps"))
    if source is None or not isinstance(axes, tuple):
        trace.opaque(op)
        return
    place, dims = source
    result = trace.shape(op.outputs[0])
    made = list(dims)
    for number, axis in enumerate(map(int, axes)):
        if not 0 <= axis < len(dims):
            trace.opaque(op)
            return
        if isinstance(starts, tuple) and isinstance(ends, tuple) and isinstance(steps, tuple):
            start, end, step = int(starts[number]), int(ends[number]), int(steps[number])
            size = dims[axis].size
            if size is not None and step > 0 and 0 <= start <= end <= size:
                made[axis] = every(dims[axis], start, -((start - end) // step), step)
                continue
        trace.hold(place, axis, _BACKWARDS)
        made[axis] = Dim(_whole(result[axis]) if result else None, _BACKWARDS)
    output = trace.give(op.outputs[0], made)
    strided = frozenset(
        int(axis) for axis, step in zip(axes, steps if isinstance(steps, tuple) else (), strict=False) if step != 1
    )
    carry(trace, op, place, output, ((dim, axis, axis) for axis, dim in enumerate(made)), counted=strided)


def _pad(trace: Trace, op: Op) -> None:
    source, pads = _source(trace, op), op.attributes.get("pads")
    if source is None or not isinstance(pads, tuple) or len(pads) != 2 * len(source[1]) or min(map(int, pads)) < 0:
        trace.opaque(op)
        return
    place, dims = source
    rank = len(dims)
    made, constant = list(dims), op.attributes.get("mode", "constant") == "constant"
    for axis in range(rank):
        before, after = int(pads[axis]), int(pads[axis + rank])
        if (before or after) and not constant:
            trace.hold(place, axis, "it is padded with its own numbers")
            size = dims[axis].size
            made[axis] = Dim(None if size is None else size + before + after, "it is padded with its own numbers")
        elif before or after:
            made[axis] = concatenation([Dim(before, "it is padding"), dims[axis], Dim(after, "it is padding")])
    output = trace.give(op.outputs[0], made)
    law = Law.LINEAR if not constant or op.attributes.get("value") == 0 else Law.OTHER
    carry(trace, op, place, output, ((dim, axis, axis) for axis, dim in enumerate(dims)), law)


def _gather(trace: Trace, op: Op) -> None:
    source, axis, ids = _source(trace, op), op.attributes.get("axis"), trace.constant(op.inputs[1])
    shape = trace.shape(op.inputs[1])
    if source is None or not isinstance(axis, int) or not 0 <= axis < len(source[1]) or shape is None:
        trace.opaque(op)
        return
    if op.function == "gather_nd":
        shape = shape[:-1]  # whose last axis holds the one number
    place, dims = source
    size = dims[axis].size
    if ids is not None and ids.size == 1 and size is not None and -size <= int(ids.reshape(-1)[0]) < size:
        at = int(ids.reshape(-1)[0]) % size
        _take(trace, op, op.outputs[0], source, axis, cut(dims[axis], at, at + 1), dropped=not shape, extra=len(shape))
        return
    trace.hold(place, axis, "elements are picked from it by number")
    for at in range(len(trace.shape(op.inputs[1]) or ())):
        trace.hold(trace.place(op, 1), at, "it holds numbers of elements")
    picked = [Dim(_whole(one), "elements are picked by number") for one in shape]
    output = trace.give(op.outputs[0], (*dims[:axis], *picked, *dims[axis + 1 :]))
    kept = [(dim, at, at if at < axis else at + len(shape) - 1) for at, dim in enumerate(dims) if at != axis]
    carry(trace, op, place, output, kept)


def _take(
    trace: Trace, op: Op, name: str, source: MovedFrom, axis: int, part: Dim, dropped: bool = False, extra: int = 1
) -> None:
    """A part of an axis, which may go where one element is left, or become several axes of one."""
    place, dims = source
    wide = 0 if dropped else extra
    middle = [part, *(Dim(1) for _ in range(wide - 1))] if wide else []
    output = trace.give(name, (*dims[:axis], *middle, *dims[axis + 1 :]))
    moved = [(dim, at, at if at < axis else at + wide - 1) for at, dim in enumerate(dims) if at != axis]
    carry(trace, op, place, output, [*moved, (part, axis, axis)] if wide else moved)


def _squeeze(trace: Trace, op: Op) -> None:
    source, axes = _source(trace, op), op.attributes.get("axes")
    if source is None or not isinstance(axes, tuple):
        trace.opaque(op)
        return
    place, dims = source
    kept = [axis for axis in range(len(dims)) if axis not in axes]
    output = trace.give(op.outputs[0], (dims[axis] for axis in kept))
    carry(trace, op, place, output, ((dims[before], before, after) for after, before in enumerate(kept)))


def _unsqueeze(trace: Trace, op: Op) -> None:
    source, axes = _source(trace, op), op.attributes.get("axes")
    if source is None or not isinstance(axes, tuple):
        trace.opaque(op)
        return
    place, dims = source
    places = [axis for axis in range(len(dims) + len(axes)) if axis not in axes]
    made = [Dim(1) for _ in range(len(dims) + len(axes))]
    for dim, axis in zip(dims, places, strict=True):
        made[axis] = dim
    output = trace.give(op.outputs[0], made)
    carry(trace, op, place, output, ((dims[before], before, after) for before, after in enumerate(places)))


def _expand(trace: Trace, op: Op) -> None:
    """Axes of one repeated: what they become has no counterpart before."""
    source, sizes = _source(trace, op), trace.shape(op.outputs[0]) or op.attributes.get("sizes")
    if source is None or not isinstance(sizes, tuple) or len(sizes) < len(source[1]):
        trace.opaque(op)
        return
    place, dims = source
    first = len(sizes) - len(dims)
    made, pairs = [Dim(_whole(size)) for size in sizes], []
    for axis, dim in enumerate(dims):
        if dim.size != 1:
            made[first + axis] = dim
            pairs.append((dim, axis, first + axis))
    output = trace.give(op.outputs[0], made)
    fresh = [Track(dim, ((1, axis),)) for axis, dim in enumerate(made) if axis < first or dims[axis - first].size == 1]
    moved = [Track(dim, ((0, before), (1, after))) for dim, before, after in pairs]
    trace.relations.append(Relation(op.name, (place, output), 1, (*moved, *fresh), ((0, 1),)))


Factor = tuple[Dim, int]


def _reshape(trace: Trace, op: Op, source: MovedFrom, result: Sequence[Size]) -> None:
    """Match the factors of both sides from the last axis on, then what is left from the first on."""
    place, dims = source
    shape = trace.shape(place.name) or (None,) * len(dims)
    left: list[Token] = []
    for axis, dim in enumerate(dims):
        parts = factors(dim) if dim.size != 1 else []
        symbol = shape[axis] if len(parts) == 1 and isinstance(shape[axis], str) else None
        left += [(part, axis, symbol if part.size is None else part.size) for part in parts]
    made: list[list[Factor] | None] = [[] if size == 1 else None for size in result]
    right = [axis for axis, size in enumerate(result) if size != 1]
    for last in (True, False):
        _match(left, right, result, made, last)
    for dim, axis, _ in left:
        trace.hold(place, axis, f"`{op.function}` takes it apart", dim)
    out = [
        Dim(_whole(result[axis]), f"`{op.function}` makes it of parts")
        if parts is None
        else product(d for d, _ in parts)
        for axis, parts in enumerate(made)
    ]
    output = trace.give(op.outputs[0], out)
    pairs = ((dim, before, after) for after, parts in enumerate(made) for dim, before in parts or ())
    carry(trace, op, place, output, pairs)


Token = tuple[Dim, int, Size]


def _match(
    left: list[Token], right: list[int], result: Sequence[Size], made: list[list[Factor] | None], last: bool
) -> None:
    """Match factors with axes from one end, as far as it is certain, and take them off both lists."""
    end = -1 if last else 0
    while left and right:
        size = result[right[end]]
        if not isinstance(size, int):
            if len(right) == 1:  # whatever is left
                made[right.pop()] = [(dim, axis) for dim, axis, _ in left]
                left.clear()
                return
            token = left[end][2]
            unknown = (
                sum(not isinstance(one[2], int) for one in left),
                sum(not isinstance(result[axis], int) for axis in right),
            )
            if isinstance(token, int) or not (unknown == (1, 1) or (token is not None and size == token)):
                return
            dim, axis, _ = left.pop(end)
            made[right.pop(end)] = [(dim, axis)]
            continue
        taken = _collect(left, size, end)
        if taken is None:
            return
        made[right.pop(end)] = taken


def _collect(left: list[Token], size: int, end: int) -> list[Factor] | None:
    """Factors from one end that make up a size; the last one may have to be split."""
    found: list[Token] = []
    missing = size
    while missing > 1 and left:
        dim, axis, number = left[end]
        if not isinstance(number, int) or number == 0:
            break
        if missing % number == 0:
            found.append(left.pop(end))
            missing //= number
            continue
        if number % missing:
            break
        halves = (Dim(number // missing), Dim(missing)) if end else (Dim(missing), Dim(number // missing))
        unify(dim, product(halves))
        left.pop(end)
        at = len(left) if end else 0
        left[at:at] = [(half, axis, half.size) for half in halves]
    if missing > 1:
        at = len(left) if end else 0
        left[at:at] = found[::-1] if end else found
        return None
    return [(dim, axis) for dim, axis, _ in (found[::-1] if end else found)]


def _merged(result: Sequence[Size] | None, sizes: Sequence[int | float | str]) -> list[Size]:
    """The sizes of a result, from its type and from what the op says."""
    if result is None:
        return [int(size) if int(size) >= 0 else None for size in sizes]
    if len(result) != len(sizes):
        return list(result)
    return [
        one if isinstance(one, int) or int(other) < 0 else int(other) for one, other in zip(result, sizes, strict=True)
    ]


def _whole(size: Size) -> int | None:
    return size if isinstance(size, int) and size >= 0 else None


def _source(trace: Trace, op: Op) -> MovedFrom | None:
    """What the op works on, with its dims."""
    place = trace.place(op, 0)
    dims = trace.axes(place)
    return None if dims is None else (place, dims)
