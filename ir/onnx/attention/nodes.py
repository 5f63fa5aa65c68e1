"""Writing the small nodes that stand around one op."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from qcc.ir.graph.ops import Array
from qcc.ir.onnx.graph.edit import OnnxEditor

INT64 = ir.DataType.INT64


class NodeWriter:
    """Writes nodes before one that is there.

    Args:
        editor: of the graph.
        before: the node.
        name: how values begin.
    """

    def __init__(self, editor: OnnxEditor, before: ir.Node, name: str) -> None:
        self._editor, self._before, self._name = editor, before, name

    def many(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        dtypes: Sequence[ir.DataType | None],
        **attributes: float | str | Sequence[int],
    ) -> Sequence[ir.Value]:
        """A node and what it makes, of these types; an op of another domain than the standard's is ``domain::Op``."""
        given = ir.convenience.convert_attributes(attributes)
        domain, _, name = op_type.rpartition("::")
        node = ir.Node(domain, name, inputs, given, num_outputs=len(dtypes))
        assert self._before.graph is not None
        self._before.graph.insert_before(self._before, node)
        node.name = self._editor.fresh_name(f"{self._name}/{name}")
        for value, dtype in zip(node.outputs, dtypes, strict=True):
            value.name = self._editor.fresh_name(f"{node.name}.out")
            value.type = None if dtype is None else ir.TensorType(dtype)
        return node.outputs

    def one(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        dtype: ir.DataType | None = None,
        **attributes: float | str | Sequence[int],
    ) -> ir.Value:
        """A node that makes one value, by default of the type of the first that it reads."""
        first = inputs[0]
        assert first is not None
        return self.many(op_type, inputs, [dtype or first.dtype], **attributes)[0]

    def numbers(self, numbers: Sequence[int]) -> ir.Value:
        """A constant row of whole numbers."""
        return self._editor.constant(f"{self._name}.operand", np.asarray(numbers, np.int64))

    def whole(self, number: int) -> ir.Value:
        """A constant whole number without axes."""
        return self._editor.constant(f"{self._name}.operand", np.asarray(number, np.int64))

    def real(self, number: float) -> ir.Value:
        """A constant of one number without axes."""
        return self._editor.constant(f"{self._name}.number", np.asarray(number, np.float32))

    def array(self, array: Array | np.generic) -> ir.Value:
        """A constant."""
        return self._editor.constant(f"{self._name}.table", np.asarray(array))

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """A value in another type."""
        return self.one("Cast", [value], dtype, to=int(dtype.value))

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """How long an axis is, as a row of one number."""
        end = {} if axis == -1 else {"end": axis + 1}
        return self.one("Shape", [value], INT64, start=axis, **end)

    def reshaped(self, value: ir.Value, *sizes: int) -> ir.Value:
        """A value with other axes; 0 keeps one, -1 is what is left."""
        return self.one("Reshape", [value, self.numbers(sizes)])

    def transposed(self, value: ir.Value, *order: int) -> ir.Value:
        """A value with its axes in another order."""
        return self.one("Transpose", [value], perm=order)
