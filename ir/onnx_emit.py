"""Writing nodes and constants into an ONNX graph: the pieces that all stored forms are made of."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding import Encoded
from qcc.ir.graph import Weight
from qcc.ir.onnx_functions import DOMAIN, VERSION, decode_function, decode_name
from qcc.ir.packing import pack


class Emitter:
    """Writes the parts of one encoded weight; nodes go before the given anchor and get stable names."""

    def __init__(self, model: ir.Model, weight: Weight, encoded: Encoded) -> None:
        self._model, self._graph = model, model.graph
        self._weight, self._encoded = weight, encoded
        self._constant = self._graph.initializers[weight.constant]
        self._nodes = {node.name: node for node in self._graph}

    def broadcast(self, flip: bool) -> tuple[ir.Value, ir.Value | None, tuple[int, ...]]:
        """Scale and zero in a shape that broadcasts over the codes' layout with its blocks apart, and that layout.

        Blocks that divide their axes get axes of their own; others are spread to one value a row or column.
        """
        encoded, block = self._encoded, self._encoded.encoding.block
        size_rows, size_columns = block.of(encoded.shape)
        down, across = block.grid(encoded.shape)
        whole = block.divides(encoded.shape)

        def shaped(array: np.ndarray) -> np.ndarray:
            array = array.reshape(down, 1, across, 1) if whole else array
            return array.transpose(2, 3, 0, 1) if flip and whole else array.T if flip else array

        scale = self.stored("scale", shaped(encoded.scales.scale))
        zero = None if encoded.scales.zero is None else self.stored("zero", shaped(self.signed_zero()))
        if whole:
            blocked = (across, size_columns, down, size_rows) if flip else (down, size_rows, across, size_columns)
            return scale, zero, blocked
        for count, number, size, axis in (
            (encoded.shape[0], down, size_rows, 1 if flip else 0),
            (encoded.shape[1], across, size_columns, 0 if flip else 1),
        ):
            if number > 1 and size > 1:
                scale = self.spread(scale, count, size, axis, self.first_reader())
                zero = None if zero is None else self.spread(zero, count, size, axis, self.first_reader())
        return scale, zero, encoded.shape[::-1] if flip else encoded.shape

    def spread(self, values: ir.Value, count: int, size: int, axis: int, anchor: ir.Node) -> ir.Value:
        """Repeat each block's value ``size`` times along an axis and cut it at ``count``."""
        numbers = [self._scalar(number) for number in (0, count, 1, size)]
        index = self.node("Range", numbers[:3], anchor, dtype=ir.DataType.INT64)
        block = self.node("Div", [index, numbers[3]], anchor, dtype=ir.DataType.INT64)
        return self.node("Gather", [values, block], anchor, [ir.AttrInt64("axis", axis)], dtype=values.dtype)

    def signed_zero(self) -> np.ndarray:
        zero = self._encoded.scales.zero
        assert zero is not None
        return (zero.astype(np.int16) - self._encoded.encoding.grid.middle).astype(np.int8)

    def decode(
        self,
        planes: list[ir.Value],
        scale: ir.Value,
        zero: ir.Value | None,
        blocked: tuple[int, ...],
        shape: tuple[int, ...],
        padding: list[ir.Value],
        dtype: ir.DataType,
        anchor: ir.Node,
    ) -> ir.Value:
        encoding = self._encoded.encoding
        key = (encoding.bits, encoding.symmetric, bool(padding), dtype)
        name = decode_name(*key)
        if (DOMAIN, name, "") not in self._model.functions:
            function = decode_function(*key, self._graph.opset_imports[""])
            self._model.functions[function.identifier()] = function
            self._graph.opset_imports.setdefault(DOMAIN, VERSION)
        inputs = [*planes, scale, *([] if zero is None else [zero]), self.shape(blocked), self.shape(shape), *padding]
        return self.node(name, inputs, anchor, dtype=dtype, domain=DOMAIN)

    def scale32(self, scale: np.ndarray, anchor: ir.Node) -> ir.Value:
        stored = self.stored("scale", scale)
        if stored.dtype is ir.DataType.FLOAT:
            return stored
        return self.node("Cast", [stored], anchor, [ir.AttrInt64("to", ir.DataType.FLOAT)], dtype=ir.DataType.FLOAT)

    def packed(self, suffix: str, codes: np.ndarray, dtype: ir.DataType, bits: int) -> ir.Value:
        if bits == 8:
            array = np.ascontiguousarray(codes)
            return self._register(suffix, ir.Tensor(array.view(np.int8) if dtype is ir.DataType.INT8 else array))
        (packed,) = pack(codes.reshape(-1), bits)
        used = -(-codes.size * bits // 8)
        return self._register(suffix, ir.PackedTensor(packed[:used], dtype, shape=ir.Shape(codes.shape)))

    def stored(self, suffix: str, array: np.ndarray) -> ir.Value:
        return self._register(suffix, ir.Tensor(np.ascontiguousarray(array)))

    def _register(self, suffix: str, tensor: ir.TensorProtocol) -> ir.Value:
        name = f"{self._weight.name}.{suffix}"
        while name in self._graph.initializers:
            name += "_"
        return self._initializer(name, tensor)

    def shape(self, sizes: Sequence[int]) -> ir.Value:
        name = "qcc.shape." + "x".join(str(size).replace("-", "m") for size in sizes)
        return self._initializer(name, ir.Tensor(np.array(sizes, np.int64)))

    def _scalar(self, number: int) -> ir.Value:
        return self._initializer(f"qcc.number.{number}", ir.Tensor(np.array(number, np.int64)))

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        known = self._graph.initializers.get(name)
        if known is not None:
            return known
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        anchor: ir.Node,
        attributes: Sequence[ir.Attr] = (),
        dtype: ir.DataType | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Insert a node before the anchor."""
        node = ir.Node(domain, op_type, inputs, attributes)
        output = node.outputs[0]
        count = sum(1 for name in self._nodes if name and name.startswith(f"{self._weight.name}/{op_type}"))
        node.name = f"{self._weight.name}/{op_type}" + (f"#{count + 1}" if count else "")
        output.name = f"{node.name}.out"
        output.dtype = dtype
        self._nodes[node.name] = node
        self._graph.insert_before(anchor, node)
        return output

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let all readers of ``old`` read ``new``; a graph output keeps its name."""
        for position, output in enumerate(self._graph.outputs):
            if output is old:
                name, old.name = old.name, f"{old.name}.float"
                new.name, new.shape, new.dtype = name, old.shape, old.dtype
                self._graph.outputs[position] = new
        old.replace_all_uses_with(new)

    def drop(self) -> None:
        """Remove the constant, and what stood between it and its layers, once nothing reads them."""
        self._prune(self._constant)
        if self._constant.uses() or self._constant.is_graph_output():
            return
        if self._constant in self._graph.inputs:
            self._graph.inputs.remove(self._constant)
        del self._graph.initializers[self._weight.constant]

    def _prune(self, value: ir.Value) -> None:
        for node in value.consumers():
            for output in node.outputs:
                self._prune(output)
            if not any(output.uses() or output.is_graph_output() for output in node.outputs):
                self._graph.remove(node, safe=True)

    def first_reader(self) -> ir.Node:
        """The first node that reads the constant."""
        return min(self._constant.consumers(), key=self._graph.index)

    def constant_shape(self) -> tuple[int, ...]:
        """The shape in which the constant is stored."""
        tensor = self._constant.const_value
        return () if tensor is None else tuple(int(size) for size in tensor.shape.numpy())
