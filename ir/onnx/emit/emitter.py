"""Writing nodes and constants into an ONNX graph: the pieces that all stored forms are made of."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.blocks import row_by_row
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.packing import pack
from qcc.ir.graph.ops import Layer, Weight
from qcc.ir.onnx.file.bodies import inside
from qcc.ir.onnx.file.domain import DOMAIN, VERSION
from qcc.ir.onnx.graph.layers import PASSING
from qcc.ir.onnx.values.write import RoundedValue, read_rounded

FLOAT_TYPES = {"bf16": ir.DataType.BFLOAT16, "fp16": ir.DataType.FLOAT16}


class Emitter:
    """Writes the parts of one encoded weight; nodes go before the given anchor and get stable names of their own."""

    def __init__(self, model: ir.Model, weight: Weight, encoded: Encoded) -> None:
        self._model, self._graph = model, model.graph
        self._weight, self._encoded = weight, encoded
        self._constant = self._graph.initializers[weight.constant]
        self._nodes = {node.name: node for node in self._graph}
        self._taken = _names(self._graph)

    def define(self, name: str, build: Callable[[int], ir.Function]) -> str:
        """Define a function of our domain where the model has none of this name yet; it is built for an opset."""
        if (DOMAIN, name, "") not in self._model.functions:
            function = build(self._graph.opset_imports[""])
            self._model.functions[function.identifier()] = function
            self._graph.opset_imports.setdefault(DOMAIN, VERSION)
        return name

    def as_float32(self, value: ir.Value, anchor: ir.Node | None) -> ir.Value:
        """The value in float32."""
        return self.cast(value, ir.DataType.FLOAT, anchor)

    def cast(self, value: ir.Value, dtype: ir.DataType, anchor: ir.Node | None) -> ir.Value:
        """The value in another type."""
        if value.dtype is dtype:
            return value
        found = self.node("Cast", [value], anchor, [ir.AttrInt64("to", dtype)], dtype=dtype)
        found.shape = value.shape
        return found

    def integers(self, suffix: str, codes: np.ndarray, dtype: ir.DataType) -> ir.Value:
        """Codes as a constant of one of ONNX's own integer types."""
        bits = dtype.bitwidth
        if bits == 8:
            array = row_by_row(codes)
            return self._register(suffix, ir.Tensor(array.view(np.int8) if dtype is ir.DataType.INT8 else array))
        (packed,) = pack(row_by_row(codes).reshape(-1), bits)
        used = -(-codes.size * bits // 8)
        return self._register(suffix, ir.PackedTensor(packed[:used], dtype, shape=ir.Shape(codes.shape)))

    def floats(self, suffix: str, codes: np.ndarray, name: str) -> ir.Value:
        """Codes as a constant of the one of ONNX's own float types whose bits they are."""
        return self._register(suffix, ir.Tensor(np.ascontiguousarray(codes).view(FLOAT_TYPES[name].numpy())))

    def stored(self, suffix: str, array: np.ndarray) -> ir.Value:
        """An array as a constant of this weight."""
        return self._register(suffix, ir.Tensor(row_by_row(array)))

    def planes(self, suffix: str, codes: np.ndarray, bits: int) -> tuple[ir.Value, ...]:
        """Codes, packed along their last axis, as constants: one a plane."""
        return tuple(
            self.stored(f"{suffix}{position}", plane) for position, plane in enumerate(pack(row_by_row(codes), bits))
        )

    def shape(self, sizes: Sequence[int]) -> ir.Value:
        """A shape as a constant that all weights share."""
        name = "qcc.shape." + "x".join(str(size).replace("-", "m") for size in sizes)
        return self.shared(name, np.array(sizes, np.int64))

    def step(self, layer: Layer) -> ir.Value | None:
        """The step of what a layer reads, if that is rounded, as a constant that all with the same share."""
        if layer.rounded is None:
            return None
        step = self.read(layer).step
        return self.shared(f"qcc.step.{float(step)!r}", np.array(step, np.float32))

    def read(self, layer: Layer) -> RoundedValue:
        """What the rounded value that a layer reads is made of."""
        value = self._nodes[layer.op].inputs[0]
        assert value is not None
        return read_rounded(value)

    def scalar(self, number: int) -> ir.Value:
        """A number as a constant that all weights share."""
        return self.shared(f"qcc.number.{number}", np.array(number, np.int64))

    def shared(self, name: str, array: np.ndarray) -> ir.Value:
        """A constant of this name that all weights share."""
        known = self._graph.initializers.get(name)
        return known if known is not None else self._initializer(name, ir.Tensor(array))

    def _register(self, suffix: str, tensor: ir.TensorProtocol) -> ir.Value:
        return self._initializer(self._fresh(f"{self._weight.name}.{suffix}"), tensor)

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        shape = ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        anchor: ir.Node | None,
        attributes: Sequence[ir.Attr] = (),
        dtype: ir.DataType | None = None,
        domain: str = "",
        count: int = 1,
        label: str = "",
    ) -> ir.Value:
        """Insert a node of so many outputs before the anchor, or after all others; the first of them.

        It is called by its type, unless a label says otherwise.
        """
        node = ir.Node(domain, op_type, inputs, attributes, num_outputs=count)
        node.name = self._fresh(f"{self._weight.name}/{label or op_type}")
        for output in node.outputs:
            output.name = self._fresh(f"{node.name}.out")
            if dtype is not None:
                output.dtype = dtype
        self._nodes[node.name] = node
        if anchor is None:
            self._graph.append(node)
        else:
            self._graph.insert_before(anchor, node)
        return node.outputs[0]

    def _fresh(self, name: str) -> str:
        count, free = 1, name
        while free in self._taken:
            count += 1
            free = f"{name}#{count}"
        self._taken.add(free)
        return free

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let all readers of ``old`` read ``new``, which takes over name, type and shape, but not a constant's."""
        if old.producer() is not None or old.is_graph_output():
            name, old.name = old.name, self._fresh(f"{old.name}.float")
            new.name, new.shape, new.type = name, old.shape, old.type
            for position, output in enumerate(self._graph.outputs):
                if output is old:
                    self._graph.outputs[position] = new
        old.replace_all_uses_with(new)

    def finish(self, old: ir.Node, product: ir.Value) -> None:
        """Put a product in the place of a MatMul or Gemm, whose bias it still lacks."""
        product.shape = old.outputs[0].shape
        if len(old.inputs) > 2 and old.inputs[2] is not None:
            product = self.node("Add", [product, old.inputs[2]], old, dtype=product.dtype)
            product.shape = old.outputs[0].shape
        self.replace(old.outputs[0], product)
        self._graph.remove(old, safe=True)

    def remove_rounded(self, value: ir.Value | None, layer: Layer) -> None:
        """Remove the rounded value that a layer read, once it does without and nothing else reads it."""
        if value is not None and layer.rounded is not None:
            self.remove_unread(value)

    def remove_unread(self, value: ir.Value) -> None:
        """Remove what only this value was made for."""
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            return
        node = value.producer()
        if value.is_initializer() and value is not self._constant:
            del self._graph.initializers[value.name or ""]
        if node is None or node.graph is not self._graph:
            return
        if any(output.uses() or output.is_graph_output() for output in node.outputs):
            return
        sources = [source for source in node.inputs if source is not None]
        self._graph.remove(node, safe=True)
        for source in sources:
            self.remove_unread(source)

    def drop(self) -> None:
        """Remove the constant, and what stood between it and its layers, once nothing reads them."""
        self.prune()
        constant = self._constant
        if constant.uses() or constant.is_graph_output():
            return
        if constant in self._graph.inputs:
            self._graph.inputs.remove(constant)
        del self._graph.initializers[constant.name or ""]

    def prune(self) -> None:
        """Remove what stood between the constant and layers that do without it now."""
        self._prune(self._constant)

    def _prune(self, value: ir.Value) -> None:
        for node in value.consumers():
            if node.graph is not self._graph or node.op_type not in PASSING:
                continue
            for output in node.outputs:
                self._prune(output)
            if not any(output.uses() or output.is_graph_output() for output in node.outputs):
                self._graph.remove(node, safe=True)

    def first_reader(self) -> ir.Node | None:
        """The first node of the main graph that reads the constant, itself or within its subgraphs, if any does."""
        readers = set(self._constant.consumers())
        nodes = (node for node in self._graph if node in readers or not readers.isdisjoint(inside(node)))
        return next(nodes, None)

    def constant_shape(self) -> tuple[int, ...]:
        """The shape in which the constant is stored."""
        tensor = self._constant.const_value
        return () if tensor is None else tuple(int(size) for size in tensor.shape.numpy())


def _names(graph: ir.Graph) -> set[str]:
    """All names of values and nodes, those of subgraphs included."""
    names: set[str | None] = {*graph.initializers, *(value.name for value in graph.inputs)}
    for node in graph:  # by hand, in one go: every weight asks anew
        names.add(node.name)
        names.update([output.name for output in node.outputs])
        for attribute in node.attributes.values():
            if attribute.type is ir.AttributeType.GRAPH:
                names |= _names(attribute.as_graph())
            elif attribute.type is ir.AttributeType.GRAPHS:
                names.update(*map(_names, attribute.as_graphs()))
    return {name for name in names if name}
