"""Weights stored row by row, so that an embedding gathers and decodes only the packed rows that it is asked for."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Layer
from qcc.ir.onnx.emit.emitter import Emitter
from qcc.ir.onnx.emit.ops import Held, OnnxOps, Packed

Rows = Mapping[str, Held]


class RowEmitter(Emitter):
    """Writes one encoded weight as packed rows, and the embeddings that read them."""

    @property
    def is_float(self) -> bool:
        """The weight is stored as floats of ONNX's own."""
        encoding = self._encoded.encoding
        return isinstance(encoding, Blocked) and encoding.is_float

    def part(self, name: str, encoded: Encoded | None = None) -> Held:
        """A part as it is, its codes flat."""
        encoded = encoded or self._encoded
        array, part = encoded.parts[name], encoded.encoding.parts(encoded.shape)[name]
        if part.dtype is np.uint8:
            return Packed(self.planes(name, array.reshape(-1), part.bits), (), array.size)
        if part.floats:
            return self.floats(name, array, part.floats)
        return self.stored(name.removesuffix(".values"), array)

    def rows(self) -> Rows:
        """What is stored, part by part: codes in planes ``[out, in * width / 8]``, all else as it is.

        Weights that are floats of a narrower type are one array ``[out, in]``.
        """
        rows = self._encoded.shape[0]
        found: dict[str, Held] = {}
        parts = self._encoded.encoding.parts(self._encoded.shape)
        for name in sorted(parts, key=lambda name: name != "codes"):
            part, array = parts[name], self._encoded.parts[name]
            if name == "codes" and self.is_float:
                found[name] = self.floats(part.floats, array, part.floats)
            elif part.dtype is np.uint8 and (part.apart or part.is_of_rows(rows)):
                found[name] = Packed(self.planes(name, array, part.bits), (len(array),), array.shape[1])
            else:
                found[name] = self.part(name)
        return found

    def gather_rows(self, layer: Layer, table: Rows) -> None:
        """``Gather(W, ids)  -->  decode(Gather(codes, ids), Gather(scale, ids))``.

        Raises:
            Refused: the indices' rank is not known.
        """
        old = self._nodes[layer.op]
        ids = old.inputs[1]
        if ids is None or ids.shape is None:
            raise Refused("the rank of the embedding's indices is unknown")
        lead = (0,) * len(ids.shape)  # the input's own

        def gathered(value: ir.Value) -> ir.Value:
            return self.node("Gather", [value, ids], old, dtype=value.dtype)

        found: dict[str, Held] = {}
        parts = self._encoded.encoding.parts(self._encoded.shape)
        for name, held in table.items():
            if not parts[name].is_of_rows(self._encoded.shape[0]):
                found[name] = held  # of the whole weight
            elif isinstance(held, Packed):
                found[name] = Packed(tuple(map(gathered, held.planes)), lead, held.count)
            else:
                found[name] = gathered(held)
        dtype = old.outputs[0].dtype or ir.DataType.from_numpy(np.dtype(self._weight.dtype))
        value = self.decode_rows(lead, found, dtype, old)
        value.shape = old.outputs[0].shape
        self.replace(old.outputs[0], value)
        self._graph.remove(old, safe=True)

    def decode_rows(self, lead: tuple[int, ...], table: Rows, dtype: ir.DataType, anchor: ir.Node | None) -> ir.Value:
        """Decode whole rows; ``lead`` is their shape, zeros where it is only known when running."""
        columns = self._encoded.shape[1]
        ops = OnnxOps(self, anchor, dtype, (*lead, columns))
        return ops.finish(self._encoded.encoding.decode_rows(ops, table.__getitem__, lead, self._encoded.shape))
