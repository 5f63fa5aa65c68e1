"""The ONNX reading of decode expressions: each operation writes nodes, which fold when a session starts.

What is stored stays constant as long as it can: a constant is given another shape where it lies. The product of a
block's numbers and its scale is a call of a function of the model's own (`decode`), whose body unpacks the codes too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.algebra import Encoding, MatrixShape, Read
from qcc.ir.encoding.grid import Grid
from qcc.ir.encoding.packing import UNIT
from qcc.ir.onnx.emit.decode import decode_function, decode_name, padded_count
from qcc.ir.onnx.emit.emitter import Emitter
from qcc.ir.onnx.file.domain import DOMAIN
from qcc.ir.onnx.file.levels import LEVEL


@dataclass(frozen=True)
class Packed:
    """Codes in planes of bytes: ``count`` of them behind the axes ``lead``, which are none where all lie flat."""

    planes: tuple[ir.Value, ...]
    lead: tuple[int, ...]
    count: int


Held = ir.Value | Packed
WHOLE = (1 << 63) - 1
"""Beyond the end of any axis."""


class OnnxOps:
    """Writes what a decode expression says before an anchor.

    Args:
        emitter: of the weight.
        anchor: the node before which all is written.
        dtype: of the result.
        result: the shape in which a matrix stored by blocks comes out; None if that is a part of the result.
        own: constants are read here alone, and may be given another shape.
    """

    def __init__(
        self,
        emitter: Emitter,
        anchor: ir.Node | None,
        dtype: ir.DataType,
        result: tuple[int, ...] | None = None,
        own: bool = False,
    ) -> None:
        self._emitter, self._anchor, self._dtype, self._result = emitter, anchor, dtype, result
        self._own = own
        self._made: ir.Value | None = None  # it has the result's shape already
        self._blocks: dict[tuple[int, int], ir.Value] = {}
        self._wide: dict[ir.Value, ir.Value] = {}  # indices, as they are gathered by

    def numbers(self, codes: Held, grid: Grid, shape: Sequence[int]) -> Held:
        """See `Ops.numbers`: a call of a function."""
        return self._call(codes, grid, [], shape, ir.DataType.FLOAT, shape)

    def scaled(
        self, codes: Held, grid: Grid, zero: Held | None, scale: Held, blocked: Sequence[int], shape: Sequence[int]
    ) -> Held:
        """See `Ops.scaled`: a call of a function."""
        operands = [scale, *([] if zero is None else [zero])]
        dtype, shape = (ir.DataType.FLOAT, shape) if self._result is None else (self._dtype, self._result)
        return self._call(codes, grid, operands, blocked, dtype, shape)

    def floats(self, stored: Held) -> Held:
        """See `Ops.floats`: functions cast what they multiply with."""
        return stored

    def decode(self, encoding: Encoding, read: Read[Held], shape: MatrixShape) -> Held:
        """See `Ops.decode`."""
        result, self._result = self._result, None  # what is a part comes out in its own shape
        found = encoding.decode(self, read, shape)
        self._result = result
        return found

    def decode_rows(self, encoding: Encoding, read: Read[Held], lead: Sequence[int], shape: MatrixShape) -> Held:
        """See `Ops.decode_rows`."""
        result, self._result = self._result, None
        found = encoding.decode_rows(self, read, lead, shape)
        self._result = result
        return found

    def total(self, levels: Sequence[Held]) -> Held:
        """See `Ops.total`: sums that are called levels, of which each reads the one before."""
        found, *others = map(self._float, levels)
        for other in others:
            found = self._emitter.node("Add", [found, other], self._anchor, dtype=ir.DataType.FLOAT, label=LEVEL)
        return found

    def multiply(self, left: Held, right: Held) -> Held:
        """See `Ops.multiply`."""
        return self._node("MatMul", [self._float(left), self._float(right)])

    def apart(self, value: Held, axes: Sequence[int]) -> Held:
        """See `Ops.apart`; free for a constant."""
        found = _value(value)
        if self._own and found.const_value is not None:
            array = np.expand_dims(found.const_value.numpy(), tuple(axes))
            found.const_value = ir.Tensor(array, name=found.name)
            found.shape = ir.Shape(array.shape)
            return found
        return self._node("Unsqueeze", [found, self._emitter.shape(tuple(axes))], dtype=found.dtype)

    def spread(self, value: Held, axis: int, size: int, count: int) -> Held:
        """See `Ops.spread`."""
        if (size, count) not in self._blocks:
            numbers = [self._emitter.scalar(number) for number in (0, count, 1, size)]
            index = self._node("Range", numbers[:3], dtype=ir.DataType.INT64)
            self._blocks[size, count] = self._node("Div", [index, numbers[3]], dtype=ir.DataType.INT64)
        found = _value(value)
        return self._node("Gather", [found, self._blocks[size, count]], [ir.AttrInt64("axis", axis)], found.dtype)

    def reshape(self, value: Held, shape: Sequence[int]) -> Held:
        """See `Ops.reshape`."""
        found = _value(value)
        return self._node("Reshape", [found, self._emitter.shape(shape)], dtype=found.dtype)

    def transpose(self, value: Held, order: Sequence[int]) -> Held:
        """See `Ops.transpose`."""
        found = _value(value)
        return self._node("Transpose", [found], [ir.AttrInt64s("perm", list(order))], found.dtype)

    def concat(self, values: Sequence[Held], axis: int) -> Held:
        """See `Ops.concat`."""
        return self._node("Concat", [self._float(one) for one in values], [ir.AttrInt64("axis", axis)])

    def take(self, value: Held, index: Held, axis: int) -> Held:
        """See `Ops.take`."""
        found, narrow = _value(value), _value(index)
        if narrow not in self._wide:
            self._wide[narrow] = self._emitter.cast(narrow, ir.DataType.INT32, self._anchor)
        return self._node("Gather", [found, self._wide[narrow]], [ir.AttrInt64("axis", axis)], found.dtype)

    def rows(self, part: Held, index: Held, lead: Sequence[int]) -> Held:
        """See `Ops.rows`."""
        if not isinstance(part, Packed):
            return self.take(part, index, 0)
        planes = (_value(self.take(plane, index, 0)) for plane in part.planes)
        return Packed(tuple(planes), tuple(lead), part.count)

    def times(self, left: Held, right: Held) -> Held:
        """See `Ops.times`."""
        return self._node("Mul", [self._float(left), self._float(right)])

    def places(self, numbers: Held, count: int) -> Held:
        """See `Ops.places`: the order, and its inverse."""
        found = _value(numbers)
        every = self._emitter.shape((count,))
        for _ in range(2):
            least_first = [ir.AttrInt64("largest", 0)]
            values = self._emitter.node("TopK", [found, every], self._anchor, least_first, found.dtype, count=2)
            node = values.producer()
            assert node is not None
            found = node.outputs[1]
            found.dtype = ir.DataType.INT64
        return found

    def ranks(self, numbers: Held) -> Held:
        """See `Ops.ranks`."""
        zero = self._emitter.shared("qcc.zeros.1", np.zeros((1,), np.float32))
        above = self._node("Greater", [_value(numbers), zero], dtype=ir.DataType.BOOL)
        one = self._emitter.cast(above, ir.DataType.INT32, self._anchor)
        axis = self._emitter.scalar(0)
        counted = self._node("CumSum", [one, axis], dtype=ir.DataType.INT32)
        return self._node("Mul", [counted, one], dtype=ir.DataType.INT32)

    def cut(self, value: Held, shape: Sequence[int]) -> Held:
        """See `Ops.cut`; an axis whose extent is not known stays whole."""
        found, ends = _value(value), self._emitter.shape([size or WHOLE for size in shape])
        return self._node("Slice", [found, self._emitter.shape((0,) * len(shape)), ends], dtype=found.dtype)

    def constant(self, name: str, array: np.ndarray) -> Held:
        """See `Ops.constant`: once in a file."""
        return self._emitter.shared(f"qcc.{name}", array)

    def zeros(self, shape: Sequence[int]) -> Held:
        """See `Ops.zeros`."""
        name = "qcc.zeros." + "x".join(map(str, shape))
        return self._emitter.shared(name, np.zeros(shape, np.float32))

    def finish(self, value: Held) -> ir.Value:
        """The result in its own type and shape."""
        found = _value(value)
        if self._result is not None and found is not self._made:
            found = _value(self.reshape(found, self._result))
        return self._emitter.cast(found, self._dtype, self._anchor)

    def _float(self, value: Held) -> ir.Value:
        return self._emitter.cast(_value(value), ir.DataType.FLOAT, self._anchor)

    def _node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        attributes: Sequence[ir.Attr] = (),
        dtype: ir.DataType | None = ir.DataType.FLOAT,
    ) -> ir.Value:
        return self._emitter.node(op_type, inputs, self._anchor, attributes, dtype)

    def _call(
        self,
        codes: Held,
        grid: Grid,
        operands: Sequence[Held],
        blocked: Sequence[int],
        dtype: ir.DataType,
        shape: Sequence[int],
    ) -> ir.Value:
        """A call of the function that decodes codes of a grid."""
        emitter = self._emitter
        if not isinstance(codes, Packed):
            return emitter.cast(codes, dtype, self._anchor)
        padding: list[ir.Value] = []
        if codes.count % UNIT:
            padding = [emitter.shape((*codes.lead, padded_count(codes.count))), emitter.shape((codes.count,))]
        name = decode_name(grid, len(operands), bool(padding), dtype)
        made = emitter.define(name, lambda opset: decode_function(grid, len(operands), bool(padding), dtype, opset))
        inputs = [*codes.planes, *map(_value, operands), emitter.shape(blocked), emitter.shape(shape), *padding]
        found = emitter.node(made, inputs, self._anchor, dtype=dtype, domain=DOMAIN)
        if self._result is not None:
            self._made = found
        return found


def _value(held: Held) -> ir.Value:
    assert isinstance(held, ir.Value), "codes stand for nothing before their numbers are looked up"
    return held
