"""The form ``fused``."""

import numpy as np
import onnx_ir as ir

from qcc.ir.kernel.op import LinearOp
from qcc.ir.onnx.emit.writer import FormWriter

SIGNED = {2: ir.DataType.INT2, 4: ir.DataType.INT4, 8: ir.DataType.INT8}
UNSIGNED = {2: ir.DataType.UINT2, 4: ir.DataType.UINT4, 8: ir.DataType.UINT8}


class FusedWriter(FormWriter):
    """Writes ``DequantizeLinear`` by blocks before the product."""

    def write(self) -> tuple[LinearOp, ...]:
        """``x @ W  -->  x @ DequantizeLinear(codes, scale)``, which the runtime makes one kernel of."""
        old = self._nodes[self._weight.layers[0].op]
        encoding, scales = self._integers_of(), self._encoded.scales
        types = SIGNED if encoding.symmetric else UNSIGNED
        flip = np.uint8(-encoding.grid.lowest if encoding.symmetric else 0)  # offset binary to two's complement
        inputs = [
            self.integers("codes", self._encoded.codes.T ^ flip, types[encoding.bits], encoding.bits),
            self.as_float32(self.stored("scale", scales.scale.T), old),
        ]
        if scales.zero is not None:
            inputs.append(self.integers("zero", scales.zero.T, types[encoding.bits], encoding.bits))
        attributes = [ir.AttrInt64("axis", 0), ir.AttrInt64("block_size", encoding.block.columns)]
        decoded = self.node("DequantizeLinear", inputs, old, attributes, dtype=ir.DataType.FLOAT)
        decoded.shape = ir.Shape(self._encoded.shape[::-1])
        product = self.node("MatMul", [old.inputs[0], decoded], old, dtype=ir.DataType.FLOAT)
        self.finish(old, product)
        self.drop()
        return ()
