"""An attention whose caches hold no more rows than they may: what is legal, and how it is written in standard ops.

Rows go at the end of a run, when all its queries have seen them. Heads keep rows of their own, so masks, which know of
the whole text, are looked up at the places of those that are there.
"""

from collections.abc import Sequence

import onnx_ir as ir

from qcc.ir.encoding.cached.kept import POOL, SAFE
from qcc.ir.encoding.cached.rows import CachedRows
from qcc.ir.encoding.cached.stored import StoredCache
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, Operand
from qcc.ir.graph.graph import Graph, needed
from qcc.ir.onnx.attention.cache import ROWS
from qcc.ir.onnx.attention.fuse import StandardWriter, check_rewritable, read_by
from qcc.ir.onnx.attention.held import HeldRows

EVICTING_OPSET = 23  # of the rotary embedding before it
FLOAT, BOOL, INT64 = ir.DataType.FLOAT, ir.DataType.BOOL, ir.DataType.INT64


def check_evicting(graph: Graph, one: Attention, keys: CachedRows | None, values: CachedRows | None) -> None:
    """See that rows of the caches of an attention may go.

    Raises:
        Refused: they may not.
    """
    if any(rows is not None and rows.first for rows in (keys, values)):
        raise Refused("first rows in floats and rows that go are not written together")
    fed = {value.name for value in graph.inputs}
    sizes = {name for op in graph.ops() if op.function == "shape" for name in op.outputs}
    for operand in (one.keys, one.values):
        if not operand.past or not operand.present or operand.past not in fed:
            raise Refused("it is fed no rows of earlier runs, or returns none")
        if others := _others(graph, one, operand):
            raise Refused(f"`{others}` reads rows that may go")
    check_rewritable(graph, one)
    if {one.keys.present, one.values.present} & needed(graph, read_by(one), sizes):
        raise Refused("what it reads depends on the rows that it gives to later runs")


def _others(graph: Graph, one: Attention, operand: Operand) -> str:
    """An op that reads rows beside the attention; empty where there is none."""
    own = {*operand.way, operand.present, one.output}
    products = {op for op, _ in one.reads}
    for op in graph.ops():
        mine = op.name in products or op.function == "shape" or not own.isdisjoint(op.outputs)
        if not mine and {operand.past, operand.present} & set(op.inputs):
            return op.name
    return ""


def evict(model: ir.Model, one: Attention, caches: Sequence[StoredCache]) -> None:
    """Write it; the model's opset is high enough.

    Rewrite:
        softmax(scale q Concat(past, k)' + bias) Concat(past, v)  -->  the same of the rows that are there, and of those
        the rows that stay

    Args:
        model: of the attention.
        one: the attention.
        caches: of its keys and of its values.
    """
    _EvictingWriter(model, one, caches).run()


class _EvictingWriter(StandardWriter):
    def __init__(self, model: ir.Model, one: Attention, caches: Sequence[StoredCache]) -> None:
        super().__init__(model, one)
        assert caches[0].evicts is not None
        self._kept = caches[0].evicts
        pairs = zip((one.keys, one.values), caches, strict=True)
        self._keys, self._values = (HeldRows(model, self.editor, self.nodes, *pair) for pair in pairs)
        nodes, places = self.nodes, self._keys.fed["places"]
        last = nodes.one("Concat", [nodes.numbers([-1]), nodes.reshaped(places, -1)], axis=0)
        self._count = nodes.one("Add", [nodes.one("ReduceMax", [last], keepdims=1), nodes.numbers([1])])
        for held in (self._keys, self._values):
            held.sized(self._count)

    def earlier(self) -> ir.Value:
        return self._count

    def attend(self, queries: ir.Value, keys: ir.Value, values: ir.Value) -> Sequence[ir.Value]:
        one, nodes = self.one, self.nodes
        heads, repeats = one.keys.heads, one.queries.heads // one.keys.heads
        new = nodes.size(keys, self.row_axis)
        asked = self._apart(queries, one.queries.heads)
        bias = self._seen(queries, keys, asked) if one.masking else None
        key_rows = self._keys.join(self._apart(keys, heads))
        value_rows = self._values.join(self._apart(values, heads))
        places = self._places(asked, new)
        asked = nodes.one("Mul", [self._keys.asked(asked, repeats), nodes.real(one.scale)])
        weights = self._weights(nodes.reshaped(asked, 0, heads, -1, one.keys.width), key_rows, bias, places)
        made = nodes.one("MatMul", [weights, value_rows])
        made = self._values.given(nodes.reshaped(made, 0, one.queries.heads, -1, one.values.width), repeats)
        scores = self._scores(weights, new, repeats)
        stay = self._staying(places, scores, new)
        told = {"places": places, "scores": scores}
        kept = {name: nodes.one("GatherElements", [value, stay], axis=ROWS) for name, value in told.items()}
        self._keys.leave(stay, kept)
        self._values.leave(stay, {})
        out = made if self.by_heads else nodes.reshaped(nodes.transposed(made, 0, 2, 1, 3), 0, 0, -1)
        return out, key_rows, value_rows

    def take(self, old: ir.Value, new: ir.Value) -> None:
        """What is returned for later runs are the rows that stay."""
        held = next((held for held in (self._keys, self._values) if held.present is old), None)
        if held is None:
            super().take(old, new)
        else:
            held.give()
            self.editor.sweep(old)

    def _apart(self, rows: ir.Value, heads: int) -> ir.Value:
        """``[batch, heads, rows, channels]``."""
        nodes = self.nodes
        return rows if self.by_heads else nodes.transposed(nodes.reshaped(rows, 0, 0, heads, -1), 0, 2, 1, 3)

    def _seen(self, queries: ir.Value, keys: ir.Value, asked: ir.Value) -> ir.Value:
        """What is added to scores of the whole text: ``[batch, heads of keys, all rows, queries of a head]``."""
        one, nodes, bias = self.one, self.nodes, self.bias(queries, keys)
        assert bias is not None
        shapes = [self.value(masking.value).shape for masking in one.masking if masking.value]
        alike = all(shape is not None and (len(shape) < 3 or shape[-3] == 1) for shape in shapes)
        heads, repeats = one.keys.heads, one.queries.heads // one.keys.heads
        count = nodes.numbers([heads if alike else one.queries.heads])
        total = nodes.one("Add", [self._count, nodes.size(keys, self.row_axis)])
        sizes = nodes.one("Concat", [nodes.size(asked, 0), count, nodes.size(asked, ROWS), total], axis=0)
        bias = nodes.one("Expand", [bias, sizes])
        if alike:
            turned = nodes.transposed(bias, 0, 1, 3, 2)
            return turned if repeats == 1 else nodes.one("Concat", [turned] * repeats, axis=-1)
        sizes = nodes.one("Concat", [nodes.size(asked, 0), nodes.numbers([heads, -1]), total], axis=0)
        return nodes.transposed(nodes.one("Reshape", [bias, sizes]), 0, 1, 3, 2)

    def _places(self, asked: ir.Value, new: ir.Value) -> ir.Value:
        """Of the rows that are there and the new ones."""
        nodes, axis = self.nodes, self.nodes.numbers([0])
        ends = (self._count, nodes.one("Add", [self._count, new]))
        begin, end = (nodes.one("Squeeze", [value, axis]) for value in ends)
        row = nodes.one("Range", [begin, end, nodes.whole(1)])
        sizes = nodes.one("Concat", [nodes.size(asked, 0), nodes.numbers([self.one.keys.heads]), new], axis=0)
        return nodes.one("Concat", [self._keys.fed["places"], nodes.one("Expand", [row, sizes])], axis=ROWS)

    def _weights(self, asked: ir.Value, keys: ir.Value, bias: ir.Value | None, places: ir.Value) -> ir.Value:
        """``[batch, heads of keys, queries of a head, rows]``."""
        nodes = self.nodes
        scores = nodes.one("MatMul", [asked, nodes.transposed(keys, 0, 1, 3, 2)])
        if bias is not None:
            seen = nodes.one("GatherND", [bias, self._index(places)], batch_dims=2)
            scores = nodes.one("Add", [scores, nodes.transposed(seen, 0, 1, 3, 2)])
        return nodes.one("Softmax", [scores], axis=-1)

    def _index(self, rows: ir.Value) -> ir.Value:
        return self.nodes.one("Unsqueeze", [rows, self.nodes.numbers([-1])])

    def _scores(self, weights: ir.Value, new: ir.Value, repeats: int) -> ir.Value:
        """See `KeptRows.scored`."""
        nodes, fading = self.nodes, self.nodes.real(self._kept.fading)
        count = nodes.one("Squeeze", [new, nodes.numbers([0])])
        last = nodes.one("Sub", [count, nodes.whole(1)])
        ages = nodes.cast(nodes.one("Range", [last, nodes.whole(-1), nodes.whole(-1)]), FLOAT)
        ages = nodes.one("Pow", [fading, ages])
        ages = ages if repeats == 1 else nodes.one("Concat", [ages] * repeats, axis=0)
        given = nodes.one("MatMul", [nodes.reshaped(ages, 1, -1), weights])
        held = self._keys.fed["scores"]
        faded = nodes.one("Mul", [held, nodes.one("Pow", [fading, nodes.cast(new, FLOAT)])])
        lead = nodes.one("Shape", [held], INT64, start=0, end=ROWS)
        none = nodes.one("Expand", [nodes.real(0), nodes.one("Concat", [lead, new], axis=0)])
        return nodes.one("Add", [nodes.one("Concat", [faded, none], axis=ROWS), nodes.reshaped(given, 0, 0, -1)])

    def _staying(self, places: ir.Value, scores: ir.Value, new: ir.Value) -> ir.Value:
        """See `KeptRows.chosen`."""
        nodes, kept, ends = self.nodes, self._kept, [POOL // 2, POOL // 2]
        pooled = nodes.one("MaxPool", [scores], kernel_shape=[POOL], pads=ends)
        total = nodes.one("Add", [self._count, new])
        late = nodes.one("Sub", [total, nodes.numbers([kept.window])])
        early = nodes.one("Less", [places, nodes.numbers([kept.sinks])], BOOL)
        safe = nodes.one("Or", [early, nodes.one("GreaterOrEqual", [places, late], BOOL)], BOOL)
        ranked = nodes.one("Where", [safe, nodes.real(SAFE), pooled], FLOAT)
        count = nodes.one("Min", [nodes.size(places, ROWS), nodes.numbers([kept.budget])])
        _, best = nodes.many("TopK", [ranked, count], [FLOAT, INT64], axis=-1)
        return nodes.many("TopK", [best, count], [INT64, INT64], axis=-1, largest=0, sorted=1)[0]
