"""What can be read off an ONNX node, whether its opset keeps it as an attribute or as a constant."""

from dataclasses import dataclass

import onnx_ir as ir

from qcc.ir.graph import attributes as canonical
from qcc.ir.graph.attributes import Sizes
from qcc.ir.onnx.file.load import array_of

MOST = 64  # numbers of an attribute kept as a constant
INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)


@dataclass(frozen=True)
class NodeSite:
    """A node under its opset."""

    node: ir.Node
    opset: int

    def shape(self, index: int = 0) -> Sizes | None:
        """An input's shape."""
        return _shape(self.input(index))

    def result(self, index: int = 0) -> Sizes | None:
        """An output's shape."""
        return _shape(self.node.outputs[index])

    def rank(self, index: int = 0) -> int | None:
        """An input's rank."""
        shape = self.shape(index)
        return None if shape is None else len(shape)

    def input(self, index: int) -> ir.Value | None:
        """An input, None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def whole(self, name: str, default: int) -> int:
        """An attribute."""
        return self.node.attributes.get_int(name, default)

    def real(self, name: str, default: float) -> float:
        """An attribute."""
        return canonical.rounded(self.node.attributes.get_float(name, default))

    def wholes(self, name: str, index: int | None = None) -> tuple[int, ...] | None:
        """An attribute, or the constant at an input; None where it is neither."""
        if name in self.node.attributes:
            return tuple(self.node.attributes[name].as_ints())
        value = None if index is None else self.input(index)
        if value is None or not is_constant(value) or value.const_value is None:
            return None
        if value.const_value.dtype not in INTEGERS or value.const_value.size > MOST:
            return None
        array = array_of(value)
        return None if array is None else tuple(map(int, array.reshape(-1)))

    def number(self, name: str, index: int) -> float | None:
        """An attribute, or the one number at an input; None where it is neither."""
        if name in self.node.attributes:
            return self.real(name, 0.0)
        value = self.input(index)
        if value is None or not is_constant(value) or value.const_value is None or value.const_value.size != 1:
            return None
        array = array_of(value)
        return None if array is None or array.dtype.kind not in "fiuV" else canonical.rounded(array.reshape(-1)[0])


def is_constant(value: ir.Value) -> bool:
    """The value is stored in the model, and no caller may give another."""
    return value.is_initializer() and value.const_value is not None and not value.is_graph_input()


def _shape(value: ir.Value | None) -> Sizes | None:
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else size.value for size in value.shape)
