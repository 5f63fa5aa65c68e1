"""The form ``rows``."""

import onnx_ir as ir

from qcc.ir.encoding.blocked import Blocked, integers
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.packing import packed_bytes
from qcc.ir.forms.fusible import fusible_as
from qcc.ir.graph.ops import Kind, Layer
from qcc.ir.kernel.op import LinearOp
from qcc.ir.onnx.emit.ops import Packed
from qcc.ir.onnx.emit.rows import Rows
from qcc.ir.onnx.emit.writer import FormWriter

CONTRIB = "com.microsoft"


class RowsWriter(FormWriter):
    """Writes packed rows that embeddings gather."""

    def write(self) -> tuple[LinearOp, ...]:
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
        return ()

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
        codes, scale, part = table["codes"], table["scale.values"], encoding.parts((rows, columns))["codes"]
        assert isinstance(codes, Packed) and isinstance(scale, ir.Value)
        size = encoding.block.columns
        blob = self.shape((rows, columns // size, packed_bytes(size, part.bits)))
        blocks = self.node("Reshape", [codes.planes[0], blob], old, dtype=ir.DataType.UINT8)
        flat = self.node("Reshape", [self.as_float32(scale, old), self.shape((-1,))], old, dtype=ir.DataType.FLOAT)
        numbers = {"K": columns, "N": rows, "bits": part.bits, "block_size": size, "accuracy_level": 4}
        attributes = [ir.AttrInt64(key, number) for key, number in numbers.items()]
        value = self.node("MatMulNBits", [old.inputs[0], blocks, flat], old, attributes, ir.DataType.FLOAT, CONTRIB)
        self._graph.opset_imports.setdefault(CONTRIB, 1)
        self.finish(old, value)

    def _shareable(self, encoding: Blocked) -> bool:
        """The packed rows are bytes that the runtime's kernel takes."""
        whole = encoding.block.columns > 0 and self._encoded.shape[1] % encoding.block.columns == 0
        fusible = whole and fusible_as(encoding, self._encoded.shape) is not None
        return fusible and encoding.grid == IntGrid(4) and self._weight.dtype == "float32"

    def _reads_rows(self, node: ir.Node) -> bool:
        """The node multiplies by the transposed table."""
        read = node.inputs[1]
        if node.op_type == "Gemm":
            return read is self._constant and bool(node.attributes.get_int("transB", 0))
        transpose = None if read is None else read.producer()
        return transpose is not None and transpose.op_type == "Transpose" and transpose.inputs[0] is self._constant
