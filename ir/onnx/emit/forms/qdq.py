"""The forms of execution providers: one ``DequantizeLinear`` before the op as it stands."""

import numpy as np
import onnx_ir as ir

from qcc.ir.forms.integers import whole_bias, widened
from qcc.ir.forms.qdq import QdqForm
from qcc.ir.graph.ops import Layer
from qcc.ir.kernel.op import LinearOp
from qcc.ir.onnx.emit.forms.integers import IntegersWriter
from qcc.ir.onnx.file.load import array_of

BIAS = 2  # its place among the inputs of an op


class QdqWriter(IntegersWriter):
    """Writes weights in bytes with a sign and zeros of 0, which a provider makes an op of integers of."""

    def write(self) -> tuple[LinearOp, ...]:
        """``op(x, W, b)  -->  op(x, DequantizeLinear(codes, scale, zero), b)``."""
        for layer in self._weight.layers:
            self._before(layer)
        self.drop()
        return ()

    def _before(self, layer: Layer) -> None:
        """Codes in the layout in which the op reads its weight; its bias as the provider has it."""
        node, count = self._nodes[layer.op], self._encoded.shape[0]
        numbers = self._numbers()
        scale: np.ndarray = np.broadcast_to(self._scales(), (count,)).astype(np.float32)
        bias = node.inputs[BIAS] if len(node.inputs) > BIAS else None
        added = None if bias is None else array_of(bias)
        whole = isinstance(self.form, QdqForm) and self.form.rules.bias == "int32" and added is not None
        if whole:
            numbers, scale = self._room(numbers, scale, np.asarray(added, np.float64).reshape(-1), layer)
        by_channel = self._encoded.scales.scale.size > 1
        turned = not layer.kernel and not _transposes(node)
        placed = numbers.reshape(count, -1, *layer.kernel) if layer.kernel else numbers.T if turned else numbers
        codes = self.integers("codes", np.ascontiguousarray(placed).view(np.uint8), ir.DataType.INT8)
        steps = self.stored("scale", scale if by_channel else scale[0])
        zeros = self._zeros(count) if by_channel else self.shared("qcc.zero.int8", np.zeros((), np.int8))
        weight = self._decoded([codes, steps, zeros], node, int(turned))
        weight.shape = codes.shape
        node.replace_input_with(1, weight)
        if whole and bias is not None:
            sums = whole_bias(np.asarray(added, np.float64).reshape(-1), scale, float(self.read(layer).step))
            held = [self.stored(name, array) for name, array in zip(("bias", "bias_scale"), sums, strict=True)]
            node.replace_input_with(BIAS, self._decoded(held, node, 0))
            self.remove_unread(bias)

    def _room(
        self, numbers: np.ndarray, scale: np.ndarray, bias: np.ndarray, layer: Layer
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and scales under which the bias fits 31 bits; one for all stays one for all."""
        wider = widened(scale.astype(np.float64), bias, float(self.read(layer).step))
        if self._encoded.scales.scale.size == 1:
            wider = np.full_like(wider, wider.max())
        ratio = (scale / wider)[:, None]
        return np.rint(numbers * ratio).astype(np.int8), wider.astype(np.float32)


def _transposes(node: ir.Node) -> bool:
    """The op reads its weight with the channels in front."""
    turned = node.attributes.get("transB")
    return node.op_type == "Gemm" and turned is not None and bool(turned.as_int())
