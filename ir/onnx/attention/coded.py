"""Rows of a cache as codes, in standard ops: how new rows become codes, and codes rows.

What an attention undoes beside the cache (a gain, an order and a centre of channels) is a product with one matrix a
head, or less where less will do.
"""

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.cached.rows import BIAS, HALF, LEAST, NEAR, TOP, CachedRows
from qcc.ir.onnx.attention.nodes import NodeWriter

FLOAT, INT8, UINT8, INT32 = ir.DataType.FLOAT, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32
CHANNELS = -1


class CodedWriter:
    """Writes what stands around one cache.

    Args:
        nodes: writes the nodes.
        rows: how they are kept.
    """

    def __init__(self, nodes: NodeWriter, rows: CachedRows) -> None:
        self._nodes, self._rows = nodes, rows
        self._width = rows.gain.shape[1]

    def moved(self, rows: ir.Value) -> ir.Value:
        """Rows with their channels as they are kept."""
        kept, nodes = self._rows, self._nodes
        rows = self._mixed(rows, kept.mixing)
        if kept.centre.any():
            rows = nodes.one("Sub", [rows, nodes.array(kept.centre[None, :, None])])
        return self._turned(rows, np.float32(1) / kept.gain, kept.order, back=False)

    def moved_back(self, rows: ir.Value, repeats: int = 1, centre: bool = True) -> ir.Value:
        """The inverse; each head stands for several side by side where ``repeats`` says so."""
        kept, nodes = self._rows, self._nodes
        found = self._turned(rows, kept.gain, kept.order, back=True, repeats=repeats)
        if centre and kept.centre.any():
            found = nodes.one("Add", [found, nodes.array(np.repeat(kept.centre, repeats, 0)[None, :, None])])
        return self._mixed(found, kept.mixed_back, repeats)

    def asked(self, queries: ir.Value, repeats: int) -> ir.Value:
        """Queries that meet keys as they are kept."""
        back = self._rows.mixed_back
        queries = self._mixed(queries, None if back is None else back.swapaxes(-1, -2), repeats)
        return self._turned(queries, self._rows.gain, self._rows.order, back=False, repeats=repeats)

    def _mixed(self, rows: ir.Value, matrix: np.ndarray | None, repeats: int = 1) -> ir.Value:
        """Rows times a matrix a head."""
        if matrix is None:
            return rows
        held = np.ascontiguousarray(np.repeat(matrix, repeats, 0))
        return self._nodes.one("MatMul", [rows, self._nodes.array(held)])

    def _turned(
        self, rows: ir.Value, gain: np.ndarray, order: np.ndarray | None, back: bool, repeats: int = 1
    ) -> ir.Value:
        """Channels times a gain, and in another order, or out of it."""
        nodes = self._nodes
        if order is None:
            if np.all(gain == 1):
                return rows
            return nodes.one("Mul", [rows, nodes.array(np.repeat(gain, repeats, 0)[None, :, None])])
        matrix = np.zeros((*gain.shape, self._width), np.float32)
        heads, places = np.indices(order.shape)
        taken = np.take_along_axis(gain, order, -1)
        matrix[(heads, places, order) if back else (heads, order, places)] = taken
        return nodes.one("MatMul", [rows, nodes.array(np.repeat(matrix, repeats, 0))])

    def encoded(self, rows: ir.Value) -> dict[str, ir.Value]:
        """The parts of rows whose channels have been moved."""
        kept, nodes, found = self._rows, self._nodes, dict[str, ir.Value]()
        if not kept.by_channel:
            apart = nodes.reshaped(rows, 0, 0, 0, self._width // kept.size, kept.size)
            found["scale"], factor = self._scale(apart)
            rows = nodes.reshaped(nodes.one("Div", [apart, factor]), 0, 0, 0, self._width)
        return found | {"codes": self._packed(rows)}

    def _scale(self, apart: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The scale of each group as it is kept, and as a factor."""
        kept, nodes = self._rows, self._nodes
        top = nodes.one("ReduceMax", [nodes.one("Abs", [apart]), nodes.numbers([CHANNELS])], keepdims=1)
        top = nodes.one("Max", [top, nodes.real(LEAST)])
        if kept.scale_type is np.uint8:
            power = nodes.one("Mul", [nodes.one("Log", [top]), nodes.real(1 / np.log(2))])
            power = nodes.one("Floor", [nodes.one("Add", [power, nodes.real(NEAR)])])
            power = nodes.one("Add", [power, nodes.real(BIAS - (kept.bits - 2))])
            held = nodes.cast(nodes.one("Clip", [power, nodes.real(0), nodes.real(TOP)]), UINT8)
        else:
            highest = nodes.real(-kept.least - 1)
            held = nodes.one("Max", [nodes.one("Div", [top, highest]), nodes.real(kept.least_scale)])
            held = nodes.cast(held, ir.DataType.from_numpy(np.dtype(kept.scale_type)))
        return nodes.reshaped(held, 0, 0, 0, self._width // kept.size), self._factor(held)

    def _factor(self, scale: ir.Value) -> ir.Value:
        nodes = self._nodes
        if self._rows.scale_type is not np.uint8:
            return nodes.cast(scale, FLOAT)
        powers = nodes.array(np.exp2(np.arange(TOP + 1, dtype=np.float32) - BIAS).astype(np.float32))
        return nodes.one("Gather", [powers, nodes.cast(scale, INT32)])

    def _packed(self, numbers: ir.Value) -> ir.Value:
        nodes, kept = self._nodes, self._rows
        if kept.bits != HALF:
            if kept.lowest != kept.least:
                numbers = nodes.one("Max", [numbers, nodes.real(kept.lowest)])
            return nodes.one("QuantizeLinear", [numbers, nodes.real(1), nodes.array(np.int8(0))], INT8)
        whole = nodes.one("Round", [nodes.one("Add", [numbers, nodes.real(-kept.least)])])
        whole = nodes.one("Clip", [whole, nodes.real(kept.lowest - kept.least), nodes.real(15)])
        low, high = nodes.many("Split", [whole], [FLOAT, FLOAT], axis=CHANNELS, num_outputs=2)
        both = nodes.one("Add", [low, nodes.one("Mul", [high, nodes.real(16)])])
        return nodes.cast(both, UINT8)

    def decoded(self, parts: dict[str, ir.Value]) -> ir.Value:
        """The rows that parts stand for, their channels as they are kept."""
        kept, nodes = self._rows, self._nodes
        numbers = self._unpacked(parts["codes"])
        if kept.by_channel:
            return numbers
        apart = nodes.reshaped(numbers, 0, 0, 0, self._width // kept.size, kept.size)
        scale = nodes.reshaped(self._factor(parts["scale"]), 0, 0, 0, self._width // kept.size, 1)
        return nodes.reshaped(nodes.one("Mul", [apart, scale]), 0, 0, 0, self._width)

    def _unpacked(self, codes: ir.Value) -> ir.Value:
        nodes, kept = self._nodes, self._rows
        if kept.bits != HALF:
            return nodes.cast(codes, FLOAT)
        low = nodes.one("BitwiseAnd", [codes, nodes.array(np.uint8(15))])
        high = nodes.one("BitShift", [codes, nodes.array(np.uint8(HALF))], direction="RIGHT")
        both = nodes.one("Concat", [low, high], axis=CHANNELS)
        return nodes.one("Add", [nodes.cast(both, FLOAT), nodes.real(kept.least)])
