"""Weights stored row by row, so that an embedding gathers and decodes only the packed rows that it is asked for."""

import numpy as np
import onnx_ir as ir

from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Layer
from qcc.ir.onnx.emit.decode import padded_count
from qcc.ir.onnx.emit.emitter import Emitter


class RowEmitter(Emitter):
    """Writes one encoded weight as packed rows, and the embeddings that read them."""

    def rows(self) -> tuple[list[ir.Value], ir.Value | None, ir.Value | None]:
        """What is stored: planes ``[out, in * width / 8]``, scales ``[out, groups]``, zeros ``[out, groups]`` (int8).

        Weights that are floats of a narrower type are one array ``[out, in]`` without scales.
        """
        scales = self._encoded.scales
        if self._encoded.encoding.scale is None:
            return [self.floats(self._encoded.codes)], None, None
        table, scale = self.planes(self._encoded.codes), self.stored("scale", scales.scale)
        return table, scale, None if scales.zero is None else self.stored("zero", self.signed_zero())

    def gather_rows(self, layer: Layer, table: list[ir.Value], scale: ir.Value | None, zero: ir.Value | None) -> None:
        """``Gather(W, ids)  -->  decode(Gather(codes, ids), Gather(scale, ids))``.

        Raises:
            Refused: the indices' rank is not known.
        """
        old = self._nodes[layer.op]
        ids = old.inputs[1]
        if ids is None or ids.shape is None:
            raise Refused("the rank of the embedding's indices is unknown")
        rows = [self.node("Gather", [plane, ids], old, dtype=plane.dtype) for plane in table]
        scale = None if scale is None else self.node("Gather", [scale, ids], old, dtype=scale.dtype)
        zero = None if zero is None else self.node("Gather", [zero, ids], old, dtype=ir.DataType.INT8)
        dtype = old.outputs[0].dtype or ir.DataType.from_numpy(np.dtype(self._weight.dtype))
        value = self.decode_rows((0,) * len(ids.shape), rows, scale, zero, dtype, old)
        value.shape = old.outputs[0].shape
        self.replace(old.outputs[0], value)
        self._graph.remove(old, safe=True)

    def decode_rows(
        self,
        leading: tuple[int, ...],
        planes: list[ir.Value],
        scale: ir.Value | None,
        zero: ir.Value | None,
        dtype: ir.DataType,
        anchor: ir.Node | None,
    ) -> ir.Value:
        """Decode whole rows; ``leading`` is their shape, zeros where it is only known when running."""
        if scale is None:
            return self.cast(planes[0], dtype, anchor)
        columns, size = self._encoded.shape[1], self._encoded.encoding.block.of(self._encoded.shape)[1]
        width = padded_count(columns)
        blocked: tuple[int, ...] = (*leading, columns)
        if size < columns and columns % size == 0:
            last = self.shape((-1,))
            scale = self.node("Unsqueeze", [scale, last], anchor, dtype=scale.dtype)
            zero = None if zero is None else self.node("Unsqueeze", [zero, last], anchor, dtype=zero.dtype)
            blocked = (*leading, columns // size, size)
        elif size < columns:
            scale, zero = self.spread(scale, zero, columns, size, -1, anchor)
        padding = [self.shape((*leading, width)), self.shape((columns,))] if width != columns else []
        return self.decode(planes, scale, zero, blocked, (*leading, columns), padding, dtype, anchor)
