"""The form ``fused``."""

import onnx_ir as ir

from qcc.ir.encoding.grid import IntGrid
from qcc.ir.kernel.op import LinearOp
from qcc.ir.onnx.emit.writer import FormWriter


class FusedWriter(FormWriter):
    """Writes ``DequantizeLinear`` by blocks before the product."""

    def write(self) -> tuple[LinearOp, ...]:
        """``x @ W  -->  x @ DequantizeLinear(codes, scale)``, which the runtime makes one kernel of."""
        old = self._nodes[self._weight.layers[0].op]
        encoding, scales = self._integers_of(), self._encoded.scales
        assert isinstance(encoding.grid, IntGrid)
        dtype = ir.DataType[encoding.grid.number_type.upper()]
        inputs = [
            self.integers("codes", encoding.grid.as_numbers(self._encoded.codes.T), dtype),
            self.as_float32(self.stored("scale", scales.scale.T), old),
        ]
        if scales.zero is not None:
            inputs.append(self.integers("zero", scales.zero.T, dtype))
        attributes = [ir.AttrInt64("axis", 0), ir.AttrInt64("block_size", encoding.block.columns)]
        decoded = self.node("DequantizeLinear", inputs, old, attributes, dtype=ir.DataType.FLOAT)
        decoded.shape = ir.Shape(self._encoded.shape[::-1])
        product = self.node("MatMul", [old.inputs[0], decoded], old, dtype=ir.DataType.FLOAT)
        self.finish(old, product)
        self.drop()
        return ()
