"""What each canonical op that computes says of axes; those that only move numbers are in `axes_moves`."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from qcc.ir.axes.trace import FIXED, FLOATS, ONE, Label, Labels, Law, Size, Trace
from qcc.ir.graph.ops import Kind, Op
from qcc.ir.vocabulary.find import OPS

AxisRule = Callable[[Trace, Op], None]


def elementwise(trace: Trace, op: Op) -> None:
    """One operand, and perhaps parameters that are spread over it."""
    law = law_of(op)
    if (op.function == "cast" and not _keeps_numbers(trace, op)) or (op.function == "clip" and not _is_relu(op)):
        law = Law.OTHER
    if op.function == "cast":
        op = replace(op, inputs=op.inputs[:1])  # another operand only shows the type
    spread(trace, op, factors=((0, 1),), law=law)


def binary(trace: Trace, op: Op) -> None:
    """Operands that are spread over each other."""
    operands = range(len(op.inputs))
    if op.function in ("add", "sub", "average"):
        spread(trace, op, terms=operands)
    elif op.function == "mul" and len(op.inputs) == 2 and op.inputs[0] != op.inputs[1]:
        spread(trace, op, factors=((0, 1), (1, 1)))
    elif op.function == "div":
        spread(trace, op, factors=((0, 1), (1, -1)))
    elif op.function in ("min", "max"):
        spread(trace, op, terms=operands, law=Law.HOMOGENEOUS)
    elif op.function == "where":
        spread(trace, op, terms=(1, 2))
    else:
        square = op.function in ("mul", "pow") and _is_square(trace, op)
        spread(trace, op, law=Law.SQUARED if square else Law.OTHER, normalised=_summed(trace, op) if square else ())


def spread(
    trace: Trace,
    op: Op,
    factors: Sequence[tuple[int, int]] = (),
    terms: Sequence[int] = (),
    law: Law = Law.LINEAR,
    normalised: Sequence[int] = (),
) -> None:
    """Operands of any rank that numpy would broadcast; labels are the axes of the result."""
    shapes = [trace.shape(name) for name in op.inputs]
    known = [shape for name, shape in zip(op.inputs, shapes, strict=True) if name and shape is not None]
    if len(known) < sum(bool(name) for name in op.inputs) or len(op.outputs) > 1:
        trace.opaque(op)
        return
    rank = max(map(len, known))
    sizes = [_spread_size(known, rank, axis) for axis in range(rank)]
    labels = Labels(trace, op)
    numbers: dict[int, int] = {}
    for position, (name, shape) in enumerate(zip(op.inputs, shapes, strict=True)):
        if name and shape is not None:
            numbers[position] = labels.read(trace.place(op, position), _spread_labels(shape, sizes))
    out = [axis if size != 1 else ONE for axis, size in enumerate(sizes)]
    output = labels.make(op.outputs[0], out)
    labels.relate(
        output,
        [(numbers[position], exponent) for position, exponent in factors],
        [numbers[position] for position in terms if position in numbers],
        law,
        normalised,
    )


def matmul(trace: Trace, op: Op) -> None:
    """A product of matrices, with a bias or without, or one that says which axes go with which."""
    if isinstance(equation := op.attributes.get("terms"), str):
        _einsum(trace, op, *equation.replace("->", ",").split(","))
        return
    shapes = [trace.shape(name) for name in op.inputs[:2]]
    flipped = op.attributes.get("transposed")
    left, right = shapes if len(shapes) == 2 else (None, None)
    if left is None or right is None or not left or not right or not isinstance(flipped, tuple):
        trace.opaque(op)
        return
    batch = max(len(left), len(right), 2) - 2
    numbers = [_spread_size([shape[:-2] for shape in (left, right)], batch, axis) for axis in range(batch)]
    labels = Labels(trace, op)
    factors = []
    for position, (shape, free) in enumerate(zip((left, right), ("row", "column"), strict=True)):
        inner: list[Label] = ["sum"] if len(shape) == 1 else [free, "sum"] if position == 0 else ["sum", free]
        if position in flipped:
            inner.reverse()
        names = [*_spread_labels(shape[:-2], numbers), *inner]
        factors.append((labels.read(trace.place(op, position), names), 1))
    ends = [*(["row"] if len(left) > 1 else []), *(["column"] if len(right) > 1 else [])]
    terms, rank = [], batch + len(ends)
    outer: list[Label] = [axis if size != 1 else ONE for axis, size in enumerate(numbers)]
    if len(op.inputs) > 2 and op.inputs[2]:
        added = trace.shape(op.inputs[2])
        if added is None or len(added) > rank:
            trace.opaque(op)
            return
        names = [*outer, *ends][rank - len(added) :]
        columns = right[-2 if 1 in flipped else -1]
        names = [
            ONE if size == 1 and not (name == "column" and columns == 1) else name
            for size, name in zip(added, names, strict=True)
        ]
        terms.append(labels.read(trace.place(op, 2), names))
    labels.relate(labels.make(op.outputs[0], [*outer, *ends]), factors, terms)


def _einsum(trace: Trace, op: Op, first: str, second: str, made: str) -> None:
    """Axes of one letter are the same."""
    labels = Labels(trace, op)
    factors = [(labels.read(trace.place(op, at), tuple(term)), 1) for at, term in enumerate((first, second))]
    labels.relate(labels.make(op.outputs[0], tuple(made)), factors)


def conv(trace: Trace, op: Op) -> None:
    """A convolution, grouped or transposed or not; its spatial axes are fixed."""
    weight, groups = trace.shape(op.inputs[1]), op.attributes.get("groups")
    image = trace.shape(op.inputs[0])
    if (
        weight is None
        or image is None
        or not isinstance(groups, int)
        or not all(isinstance(n, int) for n in weight[:2])
    ):
        trace.opaque(op)
        return
    flipped = op.function == "conv_transpose"
    rows, columns = int(weight[0] or 0), int(weight[1] or 0)
    labels = Labels(trace, op, {"group": groups, "from": columns, "to": rows // groups})
    inner: Label = ("group", "from") if groups > 1 else "from"
    outer: Label = ("group", "to") if groups > 1 else "to"
    window = (FIXED,) * (len(weight) - 2)
    own = (outer, "from", *window)
    if flipped:
        labels = Labels(trace, op, {"group": groups, "from": rows // groups, "to": columns})
        own = (inner, "to", *window)
    data = labels.read(trace.place(op, 0), ("batch", inner, *window))
    kernel = labels.read(trace.place(op, 1), own)
    bias = [labels.read(trace.place(op, 2), (outer,))] if len(op.inputs) > 2 and op.inputs[2] else []
    labels.relate(labels.make(op.outputs[0], ("batch", outer, *window)), ((data, 1), (kernel, 1)), bias)


def embedding(trace: Trace, op: Op) -> None:
    """Rows of a table by number."""
    ids = trace.shape(op.inputs[1])
    if ids is None:
        trace.opaque(op)
        return
    labels = Labels(trace, op, why="its rows have numbers")
    table = labels.read(trace.place(op, 0), (FIXED, "column"))
    outer = [("id", axis) for axis in range(len(ids))]
    labels.read(trace.place(op, 1), [FIXED] * len(ids))
    labels.relate(labels.make(op.outputs[0], [*[FIXED] * len(outer), "column"]), ((table, 1),))


def softmax(trace: Trace, op: Op) -> None:
    """Numbers compared along an axis, wherever they stand."""
    axis = op.attributes.get("axis")
    shape = trace.shape(op.inputs[0])
    axes = range(len(shape or ())) if not isinstance(axis, int) or axis < 0 else (axis,)
    spread(trace, op, law=Law.OTHER, normalised=axes)


def reduce(trace: Trace, op: Op) -> None:
    """Axes made one."""
    shape, axes, kept = trace.shape(op.inputs[0]), op.attributes.get("axes"), op.attributes.get("keepdims")
    if op.function == "cumsum":
        trace.opaque(op)
        return
    if shape is None or not isinstance(axes, tuple):
        trace.opaque(op)
        return
    where = op.function in ("argmax", "argmin")
    names: list[Label] = [FIXED if where and axis in axes else axis for axis in range(len(shape))]
    labels = Labels(trace, op)
    data = labels.read(trace.place(op, 0), names)
    out = [ONE if axis in axes else axis for axis in range(len(shape)) if kept or axis not in axes]
    law = {"mean": Law.LINEAR, "sum": Law.LINEAR, "max": Law.HOMOGENEOUS, "min": Law.HOMOGENEOUS}.get(op.function)
    squared = op.function in ("l2", "sum_square")
    output = labels.make(op.outputs[0], out)
    law = law or (Law.SQUARED if squared else Law.OTHER)
    labels.relate(output, ((data, 1),), law=law, normalised=() if op.function == "sum" else axes)


def pool(trace: Trace, op: Op) -> None:
    """A window over the spatial axes."""
    shape = trace.shape(op.inputs[0])
    if shape is None or len(shape) < 3 or len([name for name in op.outputs if name]) > 1:
        trace.opaque(op)
        return
    labels = Labels(trace, op)
    names = ("batch", "channel", *(FIXED,) * (len(shape) - 2))
    data = labels.read(trace.place(op, 0), names)
    labels.relate(labels.make(op.outputs[0], names), ((data, 1),), law=law_of(op))


def law_of(op: Op) -> Law:
    """What the op's definition says that it does to the numbers along the axes that it passes on."""
    known = OPS.get((op.kind, op.function))
    return Law.OTHER if known is None else Law(known.law)


def _keeps_numbers(trace: Trace, op: Op) -> bool:
    """A cast between types of real numbers, but not of a narrow constant, which would round what it is changed to."""
    array, to = trace.constant(op.inputs[0]), str(op.attributes.get("to", ""))
    return to.startswith(FLOATS) and (array is None or array.dtype.itemsize >= np.dtype(np.float32).itemsize)


def _is_relu(op: Op) -> bool:
    return op.attributes.get("min") == 0 and "max" not in op.attributes and not any(op.inputs[2:3])


def _is_square(trace: Trace, op: Op) -> bool:
    if op.function == "mul":
        return True
    power = trace.constant(op.inputs[1])
    return power is not None and power.size == 1 and float(power.reshape(-1)[0]) == 2


def _summed(trace: Trace, op: Op) -> tuple[int, ...]:
    """The axes over which every reader sums or averages what the op makes."""
    readers = trace.readers.get(op.outputs[0], ())
    found: list[set[int]] = []
    for reader in readers:
        axes = reader.attributes.get("axes")
        summing = reader.kind is Kind.REDUCE and reader.function in ("mean", "sum") and isinstance(axes, tuple)
        found.append({int(axis) for axis in axes} if summing and isinstance(axes, tuple) else set())
    return tuple(set.intersection(*found)) if found else ()


def _spread_size(shapes: Sequence[Sequence[Size]], rank: int, axis: int) -> Size:
    """The size of an axis of the result: any that is not one."""
    sizes = [shape[axis - rank + len(shape)] for shape in shapes if axis - rank + len(shape) >= 0]
    return next((size for size in sizes if size != 1 and isinstance(size, int)), None) or next(
        (size for size in sizes if size != 1), 1
    )


def _spread_labels(shape: Sequence[Size], sizes: Sequence[Size]) -> list[Label]:
    first = len(sizes) - len(shape)
    return [ONE if size == 1 else first + axis for axis, size in enumerate(shape)]
