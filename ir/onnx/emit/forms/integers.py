"""The form ``integers``."""

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.value import DYNAMIC_INT8
from qcc.ir.kernel.op import LinearOp
from qcc.ir.onnx.emit.writer import FormWriter


class IntegersWriter(FormWriter):
    """Writes a product of quantised numbers."""

    def write(self) -> tuple[LinearOp, ...]:
        """``x @ W  -->  DequantizeLinear(QuantizeLinear(x, step)) @ DequantizeLinear(codes, scale)``.

        With a step a token that is done to ``x`` over it, and the product multiplied by it, which keeps it from a bias.
        The runtime makes that a product of integers. But of a matrix product and its bias it makes a ``Gemm`` before,
        which it does not; nor a product that is clipped alone. The axis in front keeps it from both. And where layers
        read the same value it only multiplies bytes without a sign, so the activations are such, around 128. The
        weights have one: ``vpmaddubsw``, which multiplies such where there is no VNNI, adds two products in 16 bits,
        which two with codes of 7 bits fit. Those of 8 do not: whoever asks for them knows the processor.
        """
        encoding, scales = self._integers_of(), self._encoded.scales
        steps = [self.step(layer) for layer in self._weight.layers]
        numbers = self._encoded.codes.T + np.uint8(encoding.grid.lowest % 256)  # in two's complement
        codes = self.integers("codes", numbers, ir.DataType.INT8)
        outputs = self._encoded.shape[0]
        zero = self.shared(f"qcc.zeros.int8.{outputs}", np.zeros(outputs, np.int8))
        scale = self.stored("scale", scales.scale.reshape(-1).astype(np.float32))
        middle = self.shared("qcc.number.uint8.128", np.array(128, np.uint8))
        front = None if self._weight.reads == {DYNAMIC_INT8} else self.shape((0,))
        for layer, step in zip(self._weight.layers, steps, strict=True):
            old, read = self._nodes[layer.op], self.read(layer)
            x = read.source
            apart = read.scale is None and (x.shape is None or len(x.shape) == 2 or _clipped(old))
            value = self.node("Unsqueeze", [x, front], old, dtype=ir.DataType.FLOAT) if apart else x
            rounded = self.node("QuantizeLinear", [value, step, middle], old, dtype=ir.DataType.UINT8)
            value = self.node("DequantizeLinear", [rounded, step, middle], old, dtype=ir.DataType.FLOAT)
            axis = [ir.AttrInt64("axis", 1)]
            weight = self.node("DequantizeLinear", [codes, scale, zero], old, axis, dtype=ir.DataType.FLOAT)
            product = self.node("MatMul", [value, weight], old, dtype=ir.DataType.FLOAT)
            if apart:
                product = self.node("Squeeze", [product, front], old, dtype=ir.DataType.FLOAT)
            if read.scale is not None:
                product = self.node("Mul", [product, read.scale], old, dtype=ir.DataType.FLOAT)
            before = old.inputs[0]
            self.finish(old, product)
            self.remove_rounded(before, layer)
        self.drop()
        return ()


def _clipped(node: ir.Node) -> bool:
    """What a node makes goes right into a clip."""
    return any(reader.op_type in ("Clip", "Relu") for reader in node.outputs[0].consumers())
