"""Attentions that a kernel of ours computes on caches as they are kept; its op is a function of standard ops."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.cached.rows import CachedRows
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, Operand
from qcc.ir.graph.graph import Graph
from qcc.ir.kernel.cached_op import CachedOp, RowCode, parse_cached
from qcc.ir.onnx.attention.cache import END, ROWS, CacheWriter
from qcc.ir.onnx.attention.cached.body import cached_function
from qcc.ir.onnx.attention.coded import CodedWriter
from qcc.ir.onnx.attention.fuse import StandardWriter, check_fusible, result_of
from qcc.ir.onnx.attention.nodes import INT64, NodeWriter
from qcc.ir.onnx.file.domain import DOMAIN, VERSION
from qcc.ir.onnx.graph.edit import OnnxEditor

CACHED_OPSET = 23  # of the rotary embedding before it
NEW = 1  # the axis of new rows


def check_cached(graph: Graph, one: Attention, keys: CachedRows | None, values: CachedRows | None) -> None:
    """See that the op computes an attention on its caches.

    Raises:
        Refused: it does not.
    """
    check_fusible(graph, one, again=True)
    faults = {
        "it is fed no rows of earlier runs": not one.keys.past or not one.values.past,
        "its heads of queries are no multiple of those of keys": bool(one.queries.heads % one.keys.heads),
        "its keys and values have different widths": one.keys.width != one.values.width,
        "first rows are floats of both keys and values": len(
            {0 if one is None else one.first for one in (keys, values)}
        )
        > 1,
    }
    if fault := next((text for text, found in faults.items() if found), ""):
        raise Refused(fault)


def write_cached(model: ir.Model, one: Attention, keys: CachedRows | None, values: CachedRows | None) -> None:
    """Write the op in the place of what computes the attention; the model's opset is high enough.

    Rewrite:
        softmax(scale q Concat(past, k)' + bias) Concat(past, v)  -->  attend(q, k, v, past codes, .., bias)
    """
    one = replace(one, result=result_of(one))
    first = any(rows is not None and rows.first for rows in (keys, values))
    op = CachedOp(one.queries.heads, one.keys.heads, one.keys.width, RowCode.of(keys), RowCode.of(values), first=first)
    if (DOMAIN, op.name, "") not in model.functions:
        made = cached_function(op, model.opset_imports[""])
        model.functions[made.identifier()] = made
    model.opset_imports.setdefault(DOMAIN, VERSION)
    sides = [_Side(model, operand, rows) for operand, rows in ((one.keys, keys), (one.values, values))]
    _CachedWriter(model, one, op, sides).run()
    for side in sides:
        side.sized()
    model.graph.sort()


def cached_ops(model: ir.Model) -> tuple[CachedOp, ...]:
    """The op of each attention that is written so."""
    found = (parse_cached(node.op_type) for node in model.graph if node.domain == DOMAIN)
    return tuple(op for op in found if op is not None)


class _Side:
    """The cache of keys or of values."""

    def __init__(self, model: ir.Model, operand: Operand, rows: CachedRows | None) -> None:
        editor = OnnxEditor(model.graph)
        self.rows, self.operand = rows, operand
        self.cache = None if rows is None else CacheWriter(model, editor, operand, rows)
        self._past = editor.value(operand.past)
        self.present = editor.value(operand.present)
        self.fed = {"codes": self._past} if self.cache is None else self.cache.fed()
        self.made = dict[str, ir.Value]()

    @property
    def parts(self) -> list[str]:
        """What the op reads and makes of it, in order."""
        return [part for part in self.fed if part != "first"]

    def sized(self) -> None:
        """Let what looks at the sizes of the floats that were fed find them."""
        if self.cache is not None:
            self.cache.sized(self._past, self.fed)

    def moved(self, nodes: NodeWriter, new: ir.Value) -> tuple[ir.Value, ir.Value | None]:
        """New rows ``[batch, rows, heads * channels]`` as they are kept, and those that stay floats."""
        rows, first = self.rows, None
        if rows is None:
            return new, None
        if rows.first:
            head, new = self._divided(nodes, new)
            self.made["first"] = nodes.one("Concat", [self.fed["first"], head], axis=ROWS)
            first = CodedWriter(nodes, rows).moved(self.made["first"])
        new = self.mixed(nodes, new, rows.mixing, rows.gain.shape[0])
        if rows.centre.any():
            new = nodes.one("Sub", [new, nodes.array(rows.centre.reshape(-1))])
        if np.any(rows.gain != 1):
            new = nodes.one("Mul", [new, nodes.array((np.float32(1) / rows.gain).reshape(-1))])
        return self.ordered(nodes, new), first

    def _divided(self, nodes: NodeWriter, new: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Rows that are first ones, by heads, and the rest."""
        assert self.rows is not None
        held = nodes.size(self.fed["first"], ROWS)
        left, axis = nodes.one("Sub", [nodes.numbers([self.rows.first]), held], INT64), nodes.numbers([NEW])
        head = nodes.one("Slice", [new, nodes.numbers([0]), left, axis])
        head = nodes.transposed(nodes.reshaped(head, 0, 0, *self.rows.gain.shape), 0, 2, 1, 3)
        rest = nodes.one("Slice", [new, left, nodes.numbers([END]), axis])
        rest.shape = new.shape
        return head, rest

    @staticmethod
    def mixed(nodes: NodeWriter, flat: ir.Value, matrix: np.ndarray | None, heads: int) -> ir.Value:
        """Each of the heads, or of those of queries that share one, times its matrix; there may be no rows."""
        if matrix is None:
            return flat
        apart = nodes.reshaped(flat, 0, 0, len(matrix), heads // len(matrix), matrix.shape[1])
        made = nodes.one("MatMul", [apart, nodes.array(np.ascontiguousarray(matrix))])
        return nodes.reshaped(made, 0, 0, heads * matrix.shape[2])

    def ordered(self, nodes: NodeWriter, flat: ir.Value, repeats: int = 1, back: bool = False) -> ir.Value:
        """Channels in the order in which they are kept, or out of it."""
        if self.rows is None or self.rows.order is None:
            return flat
        order = np.argsort(self.rows.order, -1) if back else self.rows.order
        heads, width = self.rows.gain.shape
        places = np.repeat(order, repeats, 0) + np.arange(heads * repeats)[:, None] * width
        return nodes.one("Gather", [flat, nodes.numbers([int(at) for at in places.reshape(-1)])], axis=-1)

    def gain(self, repeats: int) -> np.ndarray:
        """Of each channel of a head of queries."""
        if self.rows is None:
            return np.ones(1, np.float32)
        return np.repeat(self.rows.gain, repeats, 0).reshape(-1)


class _CachedWriter(StandardWriter):
    def __init__(self, model: ir.Model, one: Attention, op: CachedOp, sides: Sequence[_Side]) -> None:
        super().__init__(model, one, by_heads=False)
        self._op, self._sides = op, sides

    def attend(self, queries: ir.Value, keys: ir.Value, values: ir.Value) -> Sequence[ir.Value]:
        nodes, op, sides = self.nodes, self._op, self._sides
        bias = self.bias(queries, keys)
        if bias is None:
            total = nodes.one("Add", [self.earlier(), nodes.size(keys, NEW)], INT64)
            shape = nodes.one("Concat", [nodes.numbers([1, 1, 1]), total], INT64, axis=0)
            bias = nodes.one("Expand", [nodes.real(0), shape])
        new, firsts = zip(
            *(side.moved(nodes, one) for side, one in zip(sides, (keys, values), strict=True)), strict=True
        )
        reads = [self._asked(queries), *new, *(side.fed[part] for side in sides for part in side.parts), bias]
        reads += [first for first in firsts if first is not None]
        types = [ir.DataType.from_numpy(op.dtype(name)) for name in op.outputs]
        y, *kept = nodes.many(f"{DOMAIN}::{op.name}", reads, types)
        for side in sides:
            side.made |= {part: kept.pop(0) for part in side.parts}
        return self._given(y), *(side.made["codes"] for side in sides)

    def earlier(self) -> ir.Value:
        """See `StandardWriter.earlier`; some of them may be floats."""
        nodes, fed = self.nodes, self._sides[0].fed
        sizes = [nodes.size(fed[part], ROWS) for part in ("first", "codes") if part in fed]
        return sizes[0] if len(sizes) == 1 else nodes.one("Add", sizes, INT64)

    def _asked(self, queries: ir.Value) -> ir.Value:
        """Queries that meet keys as they are kept."""
        nodes, side = self.nodes, self._sides[0]
        repeats = self._op.heads // self._op.kept_heads
        back = None if side.rows is None else side.rows.mixed_back
        queries = side.mixed(nodes, queries, None if back is None else back.swapaxes(-1, -2), self._op.heads)
        scale = side.gain(repeats) * np.float32(self.one.scale)
        asked = queries if np.all(scale == 1) else nodes.one("Mul", [queries, nodes.array(scale)])
        return side.ordered(nodes, asked, repeats)

    def _given(self, made: ir.Value) -> ir.Value:
        """Sums of values of sums of values as they are kept."""
        nodes, side = self.nodes, self._sides[1]
        repeats = self._op.heads // self._op.kept_heads
        made, gain = side.ordered(nodes, made, repeats, back=True), side.gain(repeats)
        if np.any(gain != 1):
            made = nodes.one("Mul", [made, nodes.array(gain)])
        if side.rows is not None and side.rows.centre.any():
            made = nodes.one("Add", [made, nodes.array(np.repeat(side.rows.centre, repeats, 0).reshape(-1))])
        return side.mixed(nodes, made, None if side.rows is None else side.rows.mixed_back, self._op.heads)

    def take(self, old: ir.Value, new: ir.Value) -> None:
        """What is returned for later runs is codes."""
        side = next((side for side in self._sides if side.present is old), None)
        if side is None or side.cache is None:
            super().take(old, new)
        else:
            side.cache.give({part: side.made[part] for part in side.fed})
            self.editor.sweep(old)
