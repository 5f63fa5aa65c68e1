"""Putting an encoded weight into an ONNX graph, in each of the forms."""

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, integers
from qcc.ir.encoding.form import Form
from qcc.ir.forms.capabilities import fused_capability, fused_cost
from qcc.ir.graph.ops import Kind, Layer
from qcc.ir.onnx.emit.kernels import KernelEmitter
from qcc.ir.onnx.emit.ops import OnnxOps, Packed
from qcc.ir.onnx.emit.rows import Rows

DECODE_OPSET = 18  # BitwiseAnd and BitwiseOr
CAST_OPSET = 13  # Cast and Gather of bfloat16
SIGNED = {2: ir.DataType.INT2, 4: ir.DataType.INT4, 8: ir.DataType.INT8}
UNSIGNED = {2: ir.DataType.UINT2, 4: ir.DataType.UINT4, 8: ir.DataType.UINT8}
CONTRIB = "com.microsoft"


def required_opset(encoding: Encoding, shape: tuple[int, int], form: Form) -> int:
    """The lowest opset that can express a weight in this form."""
    if isinstance(encoding, Blocked) and encoding.is_float:
        return CAST_OPSET
    row = fused_capability(encoding, shape) if form is Form.FUSED else None
    return row.opset if row is not None else DECODE_OPSET


class Forms(KernelEmitter):
    """Writes one encoded weight into a model whose opset is high enough."""

    def emit(self, form: Form) -> None:
        """Replace the weight, which the form can hold (`check_held`).

        Raises:
            Refused: the rank of an embedding's indices is unknown.
        """
        forms = {
            Form.FUSED: self._fused if self._encoded.input_step is None else self._integers,
            Form.DECODED: self._decoded,
            Form.ROWS: self._rows,
            Form.KERNEL: self.kernel,
        }
        if self.is_float:
            forms[Form.DECODED] = self._decoded_floats
        forms[form]()

    def _fused(self) -> None:
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

    def _integers(self) -> None:
        """``x @ W  -->  DequantizeLinear(QuantizeLinear(x, step)) @ DequantizeLinear(codes, scale)``.

        The runtime makes that a product of integers. But of a matrix product and its bias it makes a ``Gemm`` before,
        which it does not; nor a product that is clipped alone. The axis in front keeps it from both. And where layers
        read the same value it only multiplies bytes without a sign, so the activations are such, around 128. The
        weights have one: ``vpmaddubsw``, which multiplies such where there is no VNNI, adds two products in 16 bits,
        which two with codes of 7 bits fit. Those of 8 do not: whoever asks for them knows the processor.
        """
        encoding, scales = self._integers_of(), self._encoded.scales
        step = self.input_step()
        assert step is not None
        numbers = self._encoded.codes.T + np.uint8(encoding.grid.lowest % 256)  # in two's complement
        codes = self.integers("codes", numbers, ir.DataType.INT8, 8)
        outputs = self._encoded.shape[0]
        zero = self.shared(f"qcc.zeros.int8.{outputs}", np.zeros(outputs, np.int8))
        scale = self.stored("scale", scales.scale.reshape(-1).astype(np.float32))
        middle, front = self.shared("qcc.number.uint8.128", np.array(128, np.uint8)), self.shape((0,))
        for layer in self._weight.layers:
            old = self._nodes[layer.op]
            x = old.inputs[0]
            apart = x is None or x.shape is None or len(x.shape) == 2 or _clipped(old)
            value = self.node("Unsqueeze", [x, front], old, dtype=ir.DataType.FLOAT) if apart else x
            rounded = self.node("QuantizeLinear", [value, step, middle], old, dtype=ir.DataType.UINT8)
            value = self.node("DequantizeLinear", [rounded, step, middle], old, dtype=ir.DataType.FLOAT)
            axis = [ir.AttrInt64("axis", 1)]
            weight = self.node("DequantizeLinear", [codes, scale, zero], old, axis, dtype=ir.DataType.FLOAT)
            product = self.node("MatMul", [value, weight], old, dtype=ir.DataType.FLOAT)
            if apart:
                product = self.node("Squeeze", [product, front], old, dtype=ir.DataType.FLOAT)
            self.finish(old, product)
        self.drop()

    def _integers_of(self) -> Blocked:
        """How the integers are stored; what else there is was refused before."""
        found = integers(self._encoded.encoding)
        assert found is not None
        return found

    def _decoded(self) -> None:
        """``W  -->  decode(codes, scale)``, folded when the session starts."""
        anchor, view = self.first_reader(), self._weight.view
        turned = self._encoded.turned() if view.is_transposed and not view.is_matrix else None
        encoded, rows_first = turned or self._encoded, turned is None and not view.is_matrix
        shape = tuple(view.shape[axis] for axis in view.order) if rows_first else view.shape
        ops = OnnxOps(self, anchor, self._dtype(), shape, own=True)
        value = ops.finish(encoded.encoding.decode(ops, lambda name: self.part(name, encoded), encoded.shape))
        self._replace_constant(value, rows_first, anchor)

    def _decoded_floats(self) -> None:
        """``W  -->  Cast(w)``, folded when the session starts."""
        anchor, name = self.first_reader(), self._encoded.encoding.text
        table = self.floats(name, self._weight.view.array(self._encoded.codes), name)
        self._replace_constant(self.cast(table, self._dtype(), anchor), False, anchor)

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

    def _rows(self) -> None:
        """``Gather(W, ids)  -->  decode(Gather(codes, ids), Gather(scale, ids))``; other readers share the table."""
        table = self.rows()
        for layer in self._weight.layers:
            if layer.kind is Kind.EMBEDDING:
                self.gather_rows(layer, table)
            else:
                self._share_table(layer, table)
        self.prune()
        if self._constant.uses() or self._constant.is_graph_output():
            self._whole_table(table)
        else:
            self.drop()

    def _whole_table(self, table: Rows) -> None:
        """Decode the packed rows, all of them, for readers that know nothing of rows."""
        anchor = self.first_reader()
        value = self.decode_rows(self._encoded.shape[:1], table, self._dtype(), anchor)
        self._replace_constant(value, not self._weight.view.is_matrix, anchor)

    def _share_table(self, layer: Layer, table: Rows) -> None:
        """Point a linear layer at the embedding's own bytes through ``MatMulNBits``, if that is what they are."""
        encoding, (rows, columns) = integers(self._encoded.encoding), self._encoded.shape
        old = self._nodes[layer.op]
        if encoding is None or not (self._shareable(encoding) and layer.form_free and self._reads_rows(old)):
            return
        codes, scale = table["codes"], table["scale.values"]
        assert isinstance(codes, Packed) and isinstance(scale, ir.Value)
        size = encoding.block.columns
        blob = self.shape((rows, columns // size, size * encoding.bits // 8))
        blocks = self.node("Reshape", [codes.planes[0], blob], old, dtype=ir.DataType.UINT8)
        flat = self.node("Reshape", [self.as_float32(scale, old), self.shape((-1,))], old, dtype=ir.DataType.FLOAT)
        numbers = {"K": columns, "N": rows, "bits": encoding.bits, "block_size": size, "accuracy_level": 4}
        attributes = [ir.AttrInt64(key, number) for key, number in numbers.items()]
        value = self.node("MatMulNBits", [old.inputs[0], blocks, flat], old, attributes, ir.DataType.FLOAT, CONTRIB)
        self._graph.opset_imports.setdefault(CONTRIB, 1)
        self.finish(old, value)

    def _shareable(self, encoding: Blocked) -> bool:
        """The packed rows are bytes that the runtime's kernel takes, and it is worth it."""
        fused = fused_capability(encoding, self._encoded.shape) is not None
        whole = encoding.block.columns > 0 and self._encoded.shape[1] % encoding.block.columns == 0
        fast = whole and fused and fused_cost(encoding).ratio <= 1
        return fast and encoding.symmetric and encoding.bits == 4 and self._weight.dtype == "float32"

    def _reads_rows(self, node: ir.Node) -> bool:
        """The node multiplies by the transposed table."""
        read = node.inputs[1]
        if node.op_type == "Gemm":
            return read is self._constant and bool(node.attributes.get_int("transB", 0))
        transpose = None if read is None else read.producer()
        return transpose is not None and transpose.op_type == "Transpose" and transpose.inputs[0] is self._constant


def _clipped(node: ir.Node) -> bool:
    """What a node makes goes right into a clip."""
    return any(reader.op_type in ("Clip", "Relu") for reader in node.outputs[0].consumers())
