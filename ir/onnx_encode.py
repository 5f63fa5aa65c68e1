"""Putting an encoded weight into an ONNX graph, in each of the forms."""

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding import Encoded
from qcc.ir.errors import Refused
from qcc.ir.forms import Form, fused_capability
from qcc.ir.graph import Kind, Layer
from qcc.ir.onnx_emit import Emitter
from qcc.ir.onnx_functions import padded_count
from qcc.ir.packing import UNIT, pack

DECODE_OPSET = 18  # BitwiseAnd and BitwiseOr
SIGNED = {2: ir.DataType.INT2, 4: ir.DataType.INT4, 8: ir.DataType.INT8}
UNSIGNED = {2: ir.DataType.UINT2, 4: ir.DataType.UINT4, 8: ir.DataType.UINT8}
CONTRIB = "com.microsoft"


def required_opset(encoded: Encoded, form: Form) -> int:
    """The lowest opset that can express this form."""
    row = fused_capability(encoded.encoding, encoded.shape) if form is Form.FUSED else None
    return row.opset if row is not None else DECODE_OPSET


class Forms(Emitter):
    """Writes one encoded weight into a model whose opset is high enough."""

    def emit(self, form: Form) -> None:
        """Replace the weight.

        Raises:
            Refused: the form cannot hold it.
        """
        {Form.FUSED: self._fused, Form.DECODED: self._decoded, Form.ROWS: self._rows}[form]()

    def _fused(self) -> None:
        """``x @ W  -->  x @ DequantizeLinear(codes, scale)``, which the runtime makes one kernel of."""
        (layer,) = self._weight.layers
        old = self._nodes[layer.op]
        encoding, scales = self._encoded.encoding, self._encoded.scales
        types = SIGNED if encoding.symmetric else UNSIGNED
        flip = np.uint8(encoding.grid.middle if encoding.symmetric else 0)  # offset binary to two's complement
        inputs = [
            self.packed("codes", self._encoded.codes.T ^ flip, types[encoding.bits], encoding.bits),
            self.scale32(scales.scale.T, old),
        ]
        if scales.zero is not None:
            inputs.append(self.packed("zero", scales.zero.T, types[encoding.bits], encoding.bits))
        attributes = [ir.AttrInt64("axis", 0), ir.AttrInt64("block_size", encoding.block.columns)]
        decoded = self.node("DequantizeLinear", inputs, old, attributes, dtype=ir.DataType.FLOAT)
        decoded.shape = ir.Shape(self._encoded.shape[::-1])
        product = self.node("MatMul", [old.inputs[0], decoded], old, dtype=ir.DataType.FLOAT)
        product.shape = old.outputs[0].shape
        if len(old.inputs) > 2 and old.inputs[2] is not None:
            product = self.node("Add", [product, old.inputs[2]], old, dtype=ir.DataType.FLOAT)
            product.shape = old.outputs[0].shape
        self.replace(old.outputs[0], product)
        self._graph.remove(old, safe=True)
        self.drop()

    def _decoded(self) -> None:
        """``W  -->  decode(codes, scale)``, folded when the session starts."""
        if not self._constant.consumers():
            raise Refused("nothing reads the weight")
        anchor, encoded, view = self.first_reader(), self._encoded, self._weight.view
        flip = view.is_transposed and not view.is_matrix
        codes = encoded.codes.T if flip else encoded.codes
        scale, zero, blocked = self.broadcast(flip)
        planes = [self.stored(f"codes{i}", plane) for i, plane in enumerate(pack(codes.reshape(-1), encoded.encoding.bits))]
        plain = view.is_matrix or flip
        shape = view.shape if plain else tuple(view.shape[axis] for axis in view.order)
        padding = [self.shape((padded_count(codes.size),)), self.shape((codes.size,))] if codes.size % UNIT else []
        dtype = self._constant.dtype or ir.DataType.FLOAT
        value = self.decode(planes, scale, zero, blocked, shape, padding, dtype, anchor)
        if not plain:
            back = ir.AttrInt64s("perm", np.argsort(view.order).tolist())
            value = self.node("Transpose", [value], anchor, [back], dtype=dtype)
        stored_shape = tuple(self.constant_shape())
        if stored_shape != view.shape:
            value = self.node("Reshape", [value, self.shape(stored_shape)], anchor, dtype=dtype)
        value.shape = ir.Shape(stored_shape)
        self.replace(self._constant, value)
        self.drop()

    def _rows(self) -> None:
        """``Gather(W, ids)  -->  decode(Gather(codes, ids), Gather(scale, ids))``; other readers share the table."""
        encoded = self._encoded
        if encoded.encoding.block.rows != 1:
            raise Refused("an embedding is read by rows: its scales must be per channel or per group")
        table = [self.stored(f"codes{i}", plane) for i, plane in enumerate(pack(encoded.codes, encoded.encoding.bits))]
        scale = self.stored("scale", encoded.scales.scale)
        zero = None if encoded.scales.zero is None else self.stored("zero", self.signed_zero())
        for layer in self._weight.layers:
            if layer.kind is Kind.EMBEDDING:
                self._gather_rows(layer, table, scale, zero)
            else:
                self._share_table(layer, table[0], scale)
        self._prune(self._constant)
        if self._constant.uses():
            self._whole_table(table, scale, zero)
        self.drop()

    def _gather_rows(self, layer: Layer, table: list[ir.Value], scale: ir.Value, zero: ir.Value | None) -> None:
        old = self._nodes[layer.op]
        ids = old.inputs[1]
        if ids is None or ids.shape is None:
            raise Refused("the rank of the embedding's indices is unknown")
        rows = [self.node("Gather", [plane, ids], old, dtype=ir.DataType.UINT8) for plane in table]
        scale = self.node("Gather", [scale, ids], old, dtype=scale.dtype)
        zero = None if zero is None else self.node("Gather", [zero, ids], old, dtype=ir.DataType.INT8)
        dtype = old.outputs[0].dtype or ir.DataType.FLOAT
        value = self._decode_rows((0,) * len(ids.shape), rows, scale, zero, dtype, old)
        value.shape = old.outputs[0].shape
        self.replace(old.outputs[0], value)
        self._graph.remove(old, safe=True)

    def _whole_table(self, table: list[ir.Value], scale: ir.Value, zero: ir.Value | None) -> None:
        dtype = self._constant.dtype or ir.DataType.FLOAT
        value = self._decode_rows(self._encoded.shape[:1], table, scale, zero, dtype, self.first_reader())
        value.shape = ir.Shape(self._encoded.shape)
        self.replace(self._constant, value)

    def _decode_rows(
        self,
        leading: tuple[int, ...],
        planes: list[ir.Value],
        scale: ir.Value,
        zero: ir.Value | None,
        dtype: ir.DataType,
        anchor: ir.Node,
    ) -> ir.Value:
        """Decode whole rows; ``leading`` is their shape, zeros where it is only known when running."""
        columns, size = self._encoded.shape[1], self._encoded.encoding.block.of(self._encoded.shape)[1]
        width = padded_count(columns)
        blocked: tuple[int, ...] = (*leading, columns)
        if size < columns and columns % size == 0:
            last = self.shape((-1,))
            scale = self.node("Unsqueeze", [scale, last], anchor, dtype=scale.dtype)
            zero = None if zero is None else self.node("Unsqueeze", [zero, last], anchor, dtype=zero.dtype)
            blocked = (*leading, columns // size, size)
        elif size < columns:
            scale = self.spread(scale, columns, size, -1, anchor)
            zero = None if zero is None else self.spread(zero, columns, size, -1, anchor)
        padding = [self.shape((*leading, width)), self.shape((columns,))] if width != columns else []
        return self.decode(planes, scale, zero, blocked, (*leading, columns), padding, dtype, anchor)

    def _share_table(self, layer: Layer, table: ir.Value, scale: ir.Value) -> None:
        """Point a linear layer at the embedding's own bytes through ``MatMulNBits``, if that is what they are."""
        encoding, (rows, columns) = self._encoded.encoding, self._encoded.shape
        capability, old = fused_capability(encoding, self._encoded.shape), self._nodes[layer.op]
        transposed = old.inputs[1].producer() if old.op_type == "MatMul" and old.inputs[1] is not None else None
        if transposed is None or transposed.op_type != "Transpose" or transposed.inputs[0] is not self._constant:
            return
        if capability is None or capability.mean_ratio > 1 or not encoding.symmetric or encoding.bits != 4:
            return
        if self._weight.dtype != "float32" or not layer.form_free:
            return
        size = encoding.block.columns
        blob = self.shape((rows, columns // size, size * encoding.bits // 8))
        blocks = self.node("Reshape", [table, blob], old, dtype=ir.DataType.UINT8)
        to_float = [ir.AttrInt64("to", ir.DataType.FLOAT)]
        wide = scale if scale.dtype is ir.DataType.FLOAT else self.node("Cast", [scale], old, to_float, ir.DataType.FLOAT)
        flat = self.node("Reshape", [wide, self.shape((-1,))], old, dtype=ir.DataType.FLOAT)
        numbers = {"K": columns, "N": rows, "bits": encoding.bits, "block_size": size, "accuracy_level": 4}
        attributes = [ir.AttrInt64(key, number) for key, number in numbers.items()]
        value = self.node("MatMulNBits", [old.inputs[0], blocks, flat], old, attributes, ir.DataType.FLOAT, CONTRIB)
        value.shape = old.outputs[0].shape
        self._graph.opset_imports.setdefault(CONTRIB, 1)
        self.replace(old.outputs[0], value)
        self._graph.remove(old, safe=True)
