"""Cutting channels: what is left of every axis when some channels of some groups go, and what ops then say of sizes."""

from collections.abc import Mapping, Sequence, Set
from itertools import pairwise

import numpy as np

from qcc.ir.axes.dims import Dim, Order
from qcc.ir.axes.trace import INNER, Holder, Size, Trace
from qcc.ir.graph.ops import Array, Attribute, Kind, Op, Resized

KeptDims = Mapping[Dim, Array]
"""For plain dims, by their roots, the channels that stay: ``[size]`` of bool."""


def weighing_places(trace: Trace) -> frozenset[Holder]:
    """The places by which something is multiplied, or which are added, so that zeros there silence a channel."""
    found = [
        relation.places[number]
        for relation in trace.relations
        for number in (*(number for number, exponent in relation.factors if exponent > 0), *relation.terms)
    ]
    return frozenset(found)


def resized(trace: Trace, roots: KeptDims) -> Resized:
    """What an edit of the graph has to say, so that only some channels stay.

    Args:
        trace: of the graph.
        roots: at least one channel of each dim; dims that are missing stay whole.
    """
    shapes: dict[str, tuple[Size, ...]] = {}
    constants: dict[str, Array] = {}
    operands: dict[tuple[str, int], Array] = {}
    changed: set[Holder] = set()
    for place, dims in trace.dims.items():
        if INNER in place.name or not any(leaf in roots for dim in dims for leaf in dim.leaves()):
            continue
        changed.add(place)
        array = trace.constant(place.name)
        if array is None:
            old = trace.shape(place.name)
            if old is not None:
                shapes[place.name] = tuple(_size(dim, size, roots) for dim, size in zip(dims, old, strict=True))
        elif place.reader is None or len(trace.readers.get(place.name, ())) == 1:
            constants[place.name] = _cut(array, dims, roots)
        else:
            operands[place.reader] = _cut(array, dims, roots)
    ops = [op for op in trace.graph.ops() if _is_told(trace, op, changed)]
    attributes = {op.name: found for op in ops if (found := _attributes(trace, op, shapes, roots))}
    return Resized(constants, operands, shapes, attributes)


def staying(dim: Dim, roots: KeptDims) -> Array:
    """Which positions of a dim of known size stay: ``[size]`` of bool."""
    if dim.order is Order.PLAIN:
        return roots.get(dim.root, np.ones(dim.size or 0, bool))
    parts = [staying(part, roots) for part in dim.parts]
    if dim.order is Order.SUM:
        return np.concatenate(parts)
    whole = parts[0]
    for part in parts[1:]:
        whole = np.logical_and.outer(whole, part).reshape(-1)
    return whole


def _size(dim: Dim, size: Size, roots: KeptDims) -> Size:
    if not isinstance(size, int) or dim.size is None:
        return size
    return int(staying(dim, roots).sum())


def _cut(array: Array, dims: Sequence[Dim], roots: KeptDims) -> Array:
    for axis, dim in enumerate(dims):
        if any(leaf in roots for leaf in dim.leaves()):
            array = array.compress(staying(dim, roots), axis)
    return np.ascontiguousarray(array)


def _is_told(trace: Trace, op: Op, changed: Set[Holder]) -> bool:
    """An op reads or makes what changes, so it is none whose types do not fit: nothing around such a one is cut."""
    reads = (trace.place(op, position) for position, name in enumerate(op.inputs) if name)
    return bool(op.inputs) and any(place in changed for place in (*reads, *map(Holder, op.outputs)))


def _attributes(trace: Trace, op: Op, shapes: Mapping[str, tuple[Size, ...]], roots: KeptDims) -> dict[str, Attribute]:
    """The attributes of an op that count channels, where they are others now."""
    found: dict[str, Attribute] = {}
    made = next((name for name in op.outputs if name in shapes), None)
    source = Holder(op.inputs[0])
    if op.function in ("reshape", "expand") and made is not None:
        found["sizes"] = tuple(size if isinstance(size, int) else -1 for size in shapes[made])
    elif op.function == "split":
        found |= _parts(trace, op, source, roots)
    elif op.function == "slice":
        found |= _bounds(trace, op, source, roots)
    elif "groups" in op.attributes:
        found["groups"] = _groups(trace, op, roots)
    elif op.function == "attention" and made is not None:
        heads = [_axis_size(trace, Holder(name), -3, roots) for name in op.inputs[:2]]
        found |= {"heads": tuple(heads)} if len(shapes[made]) == 4 else {}
    return {name: value for name, value in found.items() if op.attributes.get(name) != value}


def _parts(trace: Trace, op: Op, source: Holder, roots: KeptDims) -> dict[str, Attribute]:
    axis, sizes, dims = op.attributes.get("axis"), op.attributes.get("sizes"), trace.dims.get(source)
    if dims is None or not isinstance(axis, int) or not isinstance(sizes, tuple) or dims[axis].size is None:
        return {}
    ends = np.cumsum([0, *map(int, sizes)])
    stays = staying(dims[axis], roots)
    return {"sizes": tuple(int(stays[start:end].sum()) for start, end in pairwise(ends))}


def _bounds(trace: Trace, op: Op, source: Holder, roots: KeptDims) -> dict[str, Attribute]:
    """Bounds count what stays before them; a slice that strides is never cut."""
    axes, bounds = op.attributes.get("axes"), [op.attributes.get(name) for name in ("starts", "ends")]
    dims = trace.dims.get(source)
    if dims is None or not isinstance(axes, tuple) or not all(isinstance(one, tuple) for one in bounds):
        return {}
    moved = []
    for numbers in bounds:
        assert isinstance(numbers, tuple)
        row = [_moved(dims[int(axis)], int(at), roots) for axis, at in zip(axes, numbers, strict=True)]
        moved.append(tuple(row))
    return {"starts": moved[0], "ends": moved[1]}


def _moved(dim: Dim, at: int, roots: KeptDims) -> int:
    if dim.size is None or not any(leaf in roots for leaf in dim.leaves()):
        return at
    return int(staying(dim, roots)[:at].sum())


def _groups(trace: Trace, op: Op, roots: KeptDims) -> int:
    """How many groups stay: all channels over those of one group, which a convolution's weight tells, or none cuts."""
    made = Holder(op.outputs[0] if op.function == "conv_transpose" else op.inputs[0])
    channels = _axis_size(trace, made, 1, roots)
    one = _axis_size(trace, trace.place(op, 1), 1, roots) if op.kind is Kind.CONV else 0
    if op.kind is Kind.NORM:
        one = _axis_size(trace, made, 1, {}) // int(str(op.attributes["groups"]))
    return channels // one if channels and one else int(str(op.attributes["groups"]))


def _axis_size(trace: Trace, place: Holder, axis: int, roots: KeptDims) -> int:
    dims = trace.dims.get(place)
    if dims is None or dims[axis].size is None:
        return 0
    return int(staying(dims[axis], roots).sum())
