"""What the writers of forms have in common: how a whole weight takes its constant's place."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.blocked import Blocked, integers
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Weight
from qcc.ir.kernel.op import LinearOp
from qcc.ir.kernel.region import NO_REGIONS, Region
from qcc.ir.onnx.emit.rows import RowEmitter


class FormWriter(RowEmitter, ABC):
    """Writes one encoded weight in a form into a model whose opset is high enough (`Form.opset`).

    Args:
        model: the model.
        weight: with its layers.
        encoded: what is stored of it, which the form holds (`Form.check`).
        regions: what kernels do beside the products of the layers, by the layers' names.
    """

    form: Form
    """That it is written in."""

    def __init__(
        self, model: ir.Model, weight: Weight, encoded: Encoded, regions: Mapping[str, Region] = NO_REGIONS
    ) -> None:
        super().__init__(model, weight, encoded)
        self._regions = regions

    @abstractmethod
    def write(self) -> tuple[LinearOp, ...]:
        """Replace the weight.

        Returns:
            The kernel ops that the model calls for it.

        Raises:
            Refused: the rank of an embedding's indices is unknown.
        """

    def _integers_of(self) -> Blocked:
        """How the integers are stored; what else there is was refused before."""
        found = integers(self._encoded.encoding)
        assert found is not None
        return found

    def _dtype(self) -> ir.DataType:
        """The type in which the constant is stored."""
        tensor = self._constant.const_value
        assert tensor is not None
        return ir.DataType(tensor.dtype)

    def _replace_constant(self, value: ir.Value, rows_first: bool, anchor: ir.Node | None) -> None:
        """Let a decoded weight, whose axes may stand in the matrix's order, take the constant's place."""
        view, shape = self._weight.view, self.constant_shape()
        if rows_first:
            back = ir.AttrInt64s("perm", np.argsort(view.order).tolist())
            value = self.node("Transpose", [value], anchor, [back], dtype=value.dtype)
        if shape != view.shape:
            value = self.node("Reshape", [value, self.shape(shape)], anchor, dtype=value.dtype)
        value.shape = ir.Shape(shape)
        self.replace(self._constant, value)
        self.drop()
