"""A causal attention that leaves blocks of scores out, by standard ops: what is left out is not computed.

Rows are cut into segments, and these into blocks. A row sees its own segment up to itself: that part is dense. In
segments that are over, keys are sorted by the weight that the last rows of all give them, so that what counts stands
together; each block of queries meets those blocks of keys that hold most of its weight, as some of its rows or the
means of both tell. The blocks that meet are a list, over which one product goes; the two parts are put together by
their largest scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, BlockSparseScores
from qcc.ir.graph.graph import Graph
from qcc.ir.kernel.attend_op import AttendOp
from qcc.ir.onnx.attention.attend import name_borders
from qcc.ir.onnx.attention.fuse import HIDDEN, check_fusible
from qcc.ir.onnx.attention.nodes import INT64
from qcc.ir.onnx.attention.writer import AttentionWriter

BOOL = ir.DataType.BOOL
FORCED = 2.0  # more than any share: what is always kept comes first when shares are sorted


def check_block_sparse(graph: Graph, one: Attention) -> None:
    """See that blocks of an attention can be left out.

    Raises:
        Refused: they cannot.
    """
    check_fusible(graph, one)
    if one.keys.past:
        raise Refused("rows of earlier runs come first")
    if one.queries.heads % one.keys.heads:
        raise Refused("its heads of queries are no multiple of those of keys")


def write_block_sparse(model: ir.Model, one: Attention, how: BlockSparseScores) -> None:
    """Write the ops; the model's opset is high enough."""
    (_Masked if how.masked else _Listed)(model, one, how).run()


@dataclass(frozen=True)
class _Parts:
    """Queries ``[B, H, R, N, d]``, by block; keys and values ``[B, H, 1, N, d]`` as they are, and sorted in segments.

    ``B`` samples, ``H`` heads of keys, ``R`` of queries for each, ``N`` rows, filled up to whole segments.
    """

    queries: ir.Value
    keys: ir.Value
    values: ir.Value
    sorted_keys: ir.Value
    sorted_values: ir.Value
    order: ir.Value  # [B, H, segments, segment]: where in its segment each sorted key was
    kept: ir.Value  # [B, H, R, blocks, blocks] of queries and of sorted keys: they meet, of segments that are over


class _Selection(AttentionWriter):
    """Sorts keys and chooses blocks; what is then computed is for others to say."""

    def __init__(self, model: ir.Model, one: Attention, how: BlockSparseScores) -> None:
        super().__init__(model, one, by_heads=False)
        self._how = how
        self.blocks = how.segment // how.block

    def combined(self, parts: _Parts) -> ir.Value:
        """The result ``[B, H, R, N, d]``."""
        raise NotImplementedError

    def attend(self, queries: ir.Value, keys: ir.Value, values: ir.Value) -> Sequence[ir.Value]:
        nodes, rows = self.nodes, self.nodes.size(queries, 1)
        scaled = nodes.one("Mul", [queries, nodes.real(self.one.scale)])
        heads, shared = self.one.queries.heads, self.one.keys.heads
        q, k, v = (
            self._by_head(value, rows, count) for value, count in ((scaled, heads), (keys, shared), (values, shared))
        )
        order = self._order(q, k, rows)
        sorted_keys, sorted_values = (self._sorted(value, order) for value in (k, v))
        kept = self._kept(q, sorted_keys, order, rows)
        made = self.combined(_Parts(q, k, v, sorted_keys, sorted_values, order, kept))
        made = nodes.one("Transpose", [made], perm=[0, 3, 1, 2, 4])
        made = nodes.one("Reshape", [made, self._three(made)])
        return [nodes.one("Slice", [made, nodes.numbers([0]), rows, nodes.numbers([1])])]

    def _three(self, made: ir.Value) -> ir.Value:
        ends = [self.nodes.one("Shape", [made], INT64, start=0, end=2), self.nodes.numbers([-1])]
        return self.nodes.one("Concat", ends, INT64, axis=0)

    def _by_head(self, value: ir.Value, rows: ir.Value, heads: int) -> ir.Value:
        """Filled up with zeros to whole segments, by heads of keys and the queries' heads of each."""
        nodes, segment = self.nodes, self.nodes.numbers([self._how.segment])
        missing = nodes.one("Mod", [nodes.one("Neg", [rows]), segment])
        ends = nodes.one("Concat", [nodes.numbers([0, 0, 0, 0]), missing, nodes.numbers([0])], INT64, axis=0)
        filled = nodes.one("Pad", [value, ends])
        split = nodes.reshaped(filled, 0, 0, self.one.keys.heads, heads // self.one.keys.heads, -1)
        return nodes.transposed(split, 0, 2, 3, 1, 4)

    def _order(self, q: ir.Value, k: ir.Value, rows: ir.Value) -> ir.Value:
        """Where keys of each segment stand, the one that the last rows of all give most weight first."""
        nodes, block = self.nodes, self._how.block
        start = nodes.one("Max", [nodes.one("Sub", [rows, nodes.numbers([block])]), nodes.numbers([0])])
        last = nodes.one("Slice", [q, start, rows, nodes.numbers([3])])
        scores = nodes.one("MatMul", [last, nodes.transposed(k, 0, 1, 2, 4, 3)])
        weights = nodes.one("Softmax", [nodes.one("Add", [scores, self._beyond(k, rows)])], axis=-1)
        mean = nodes.one("ReduceMean", [weights, nodes.numbers([2, 3])], keepdims=0)
        cut = nodes.reshaped(mean, 0, 0, -1, self._how.segment)
        return nodes.many("TopK", [cut, nodes.numbers([self._how.segment])], [cut.dtype, INT64], axis=-1)[1]

    def _beyond(self, k: ir.Value, rows: ir.Value) -> ir.Value:
        """What hides the keys that only fill up."""
        nodes = self.nodes
        total = nodes.one("Squeeze", [nodes.size(k, 3)])
        place = nodes.one("Range", [nodes.whole(0), total, nodes.whole(1)])
        inside = nodes.one("Less", [place, rows], BOOL)
        return nodes.one("Where", [inside, nodes.real(0), nodes.real(HIDDEN)], ir.DataType.FLOAT)

    def _sorted(self, value: ir.Value, order: ir.Value) -> ir.Value:
        """Rows ``[B, H, 1, N, d]`` in the order of each segment, ``[B, H, N, d]``."""
        nodes = self.nodes
        width = nodes.size(value, 4)
        cut = nodes.one("Concat", [nodes.one("Shape", [order], INT64), width], INT64, axis=0)
        at = nodes.one("Expand", [nodes.one("Unsqueeze", [order, nodes.numbers([-1])]), cut])
        picked = nodes.one("GatherElements", [nodes.one("Reshape", [value, cut]), at], value.dtype, axis=3)
        ends = [nodes.one("Shape", [order], INT64, start=0, end=2), nodes.numbers([-1]), width]
        return nodes.one("Reshape", [picked, nodes.one("Concat", ends, INT64, axis=0)])

    def _kept(self, q: ir.Value, sorted_keys: ir.Value, order: ir.Value, rows: ir.Value) -> ir.Value:
        """Which blocks meet: the first, and those that hold most of the weight, as far as that is told."""
        nodes = self.nodes
        over, own = self._segments(q)
        first = nodes.one("And", [over, self._first(q)], BOOL)
        if self._how.rows:
            shares = self._told_by_rows(q, sorted_keys, order, rows)
        else:
            shares = self._told_by_means(q, sorted_keys, nodes.one("Or", [over, own], BOOL))
        always = nodes.one("Or", [first, own], BOOL)
        forced = nodes.one("Where", [always, nodes.real(FORCED), nodes.real(0)], ir.DataType.FLOAT)
        count = nodes.size(shares, -1)
        at = nodes.many("TopK", [nodes.one("Add", [shares, forced]), count], [shares.dtype, INT64], axis=-1)[1]
        ordered = nodes.one("GatherElements", [shares, at], axis=-1)
        before = nodes.one("CumSum", [ordered, nodes.whole(-1)], exclusive=1)
        enough = nodes.one("Less", [before, nodes.real(self._how.mass if self._how.mass < 1 else FORCED)], BOOL)
        some = nodes.one("Cast", [enough], INT64, to=int(INT64))
        zeros = nodes.one("Mul", [at, nodes.whole(0)])
        chosen = nodes.one("ScatterElements", [zeros, at, some], axis=-1)
        chosen = nodes.one("Cast", [chosen], BOOL, to=int(BOOL))
        return nodes.one("And", [nodes.one("Or", [chosen, first], BOOL), over], BOOL)

    def _told_by_means(self, q: ir.Value, sorted_keys: ir.Value, known: ir.Value) -> ir.Value:
        """The weight that blocks of queries give to blocks of keys, as the means of both tell it."""
        nodes = self.nodes
        cut = [self.cut(value, self._how.block) for value in (q, sorted_keys)]
        means = [nodes.one("ReduceMean", [value, nodes.numbers([-2])], keepdims=0) for value in cut]
        keys = nodes.one("Unsqueeze", [nodes.transposed(means[1], 0, 1, 3, 2), nodes.numbers([2])])
        hidden = nodes.one("Where", [known, nodes.real(0), nodes.real(HIDDEN)], ir.DataType.FLOAT)
        return nodes.one("Softmax", [nodes.one("Add", [nodes.one("MatMul", [means[0], keys]), hidden])], axis=-1)

    def _told_by_rows(self, q: ir.Value, sorted_keys: ir.Value, order: ir.Value, rows: ir.Value) -> ir.Value:
        """The same as some rows of each block give it, evenly spaced up to the last that there is."""
        nodes, block, apart = self.nodes, self._how.block, self._how.block // self._how.rows
        count = nodes.one("Div", [nodes.one("Squeeze", [nodes.size(q, 3)]), nodes.whole(apart)])
        at = nodes.one("Range", [nodes.whole(1), nodes.one("Add", [count, nodes.whole(1)]), nodes.whole(1)])
        at = nodes.one("Sub", [nodes.one("Mul", [at, nodes.whole(apart)]), nodes.whole(1)])
        at = nodes.one("Min", [at, nodes.one("Sub", [rows, nodes.numbers([1])])])
        picked = nodes.one("Gather", [q, at], axis=3)
        keys = nodes.one("Unsqueeze", [nodes.transposed(sorted_keys, 0, 1, 3, 2), nodes.numbers([2])])
        starts = nodes.one("Range", [nodes.whole(0), nodes.one("Squeeze", [nodes.size(order, 2)]), nodes.whole(1)])
        starts = nodes.one(
            "Mul", [nodes.one("Unsqueeze", [starts, nodes.numbers([1])]), nodes.whole(self._how.segment)]
        )
        place = nodes.reshaped(nodes.one("Add", [order, starts]), 0, 0, 1, 1, -1)
        seen = nodes.one("LessOrEqual", [place, nodes.one("Unsqueeze", [at, nodes.numbers([1])])], BOOL)
        bias = nodes.one("Where", [seen, nodes.real(0), nodes.real(HIDDEN)], ir.DataType.FLOAT)
        weights = nodes.one("Softmax", [nodes.one("Add", [nodes.one("MatMul", [picked, keys]), bias])], axis=-1)
        held = nodes.one("ReduceSum", [self.parted(weights, block), nodes.numbers([-1])], keepdims=0)
        return nodes.one("ReduceMean", [self.cut(held, self._how.rows), nodes.numbers([-2])], keepdims=0)

    def parted(self, value: ir.Value, size: int) -> ir.Value:
        """Numbers ``[..., n]`` as ``[..., n / size, size]``."""
        sizes = [self.nodes.one("Shape", [value], INT64, start=0, end=-1), self.nodes.numbers([-1, size])]
        return self.nodes.one("Reshape", [value, self.nodes.one("Concat", sizes, INT64, axis=0)])

    def cut(self, value: ir.Value, size: int) -> ir.Value:
        """Rows ``[..., N, d]`` as ``[..., N / size, size, d]``."""
        nodes = self.nodes
        sizes = [nodes.one("Shape", [value], INT64, start=0, end=-2), nodes.numbers([-1, size]), nodes.size(value, -1)]
        return nodes.one("Reshape", [value, nodes.one("Concat", sizes, INT64, axis=0)])

    def _block_numbers(self, q: ir.Value) -> ir.Value:
        """Of blocks, counted."""
        nodes = self.nodes
        rows = nodes.one("Squeeze", [nodes.size(q, 3)])
        return nodes.one(
            "Range", [nodes.whole(0), nodes.one("Div", [rows, nodes.whole(self._how.block)]), nodes.whole(1)]
        )

    def _first(self, q: ir.Value) -> ir.Value:
        return self.nodes.one("Equal", [self._block_numbers(q), self.nodes.whole(0)], BOOL)

    def _segments(self, q: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Which blocks of keys are of segments that are over, for each block of queries, and which of its own."""
        nodes = self.nodes
        segment = nodes.one("Div", [self._block_numbers(q), nodes.whole(self.blocks)])
        mine = nodes.one("Unsqueeze", [segment, nodes.numbers([1])])
        return nodes.one("Less", [segment, mine], BOOL), nodes.one("Equal", [segment, mine], BOOL)


class _Listed(_Selection):
    """One product over all blocks that meet."""

    def combined(self, parts: _Parts) -> ir.Value:
        made = self._met(parts)
        if self.one.values.width == (width := self.one.keys.width):
            given = parts.queries, parts.keys, parts.values, parts.sorted_keys, parts.sorted_values, parts.kept
            op = AttendOp(self._how.block, self._how.segment, width)
            name_borders(self.editor, self.one.name, op, given, made)
        return made

    def _met(self, parts: _Parts) -> ir.Value:
        nodes, block, segment = self.nodes, self._how.block, self._how.segment
        later = np.where(np.tri(segment, dtype=bool), 0, HIDDEN).astype(np.float32)
        own_keys = nodes.transposed(self.cut(parts.keys, segment), 0, 1, 2, 3, 5, 4)
        own = nodes.one("MatMul", [self.cut(parts.queries, segment), own_keys])
        own = nodes.one("Add", [own, self.editor.constant(f"{self.one.name}.later", later)])
        queries, keys = self._pairs(parts)
        blocks = nodes.one("Gather", [self._blocks(parts.queries), queries], axis=0)
        turned = nodes.transposed(self._blocks(parts.sorted_keys), 0, 2, 1)
        scores = nodes.one("MatMul", [blocks, nodes.one("Gather", [turned, keys], axis=0)])
        at = nodes.one("Unsqueeze", [queries, nodes.numbers([1])])
        largest = nodes.reshaped(nodes.one("ReduceMax", [own, nodes.numbers([-1])], keepdims=0), -1, block)
        found = nodes.one("ReduceMax", [scores, nodes.numbers([-1])], keepdims=0)
        largest = nodes.one("ScatterND", [largest, at, found], reduction="max")
        mine = nodes.one("Reshape", [largest, self._shape(own, -1, 1)])
        own = nodes.one("Exp", [nodes.one("Sub", [own, mine])])
        theirs = nodes.one("Unsqueeze", [nodes.one("Gather", [largest, queries], axis=0), nodes.numbers([-1])])
        scores = nodes.one("Exp", [nodes.one("Sub", [scores, theirs])])
        sums = nodes.reshaped(nodes.one("ReduceSum", [own, nodes.numbers([-1])], keepdims=0), -1, block)
        more = nodes.one("ReduceSum", [scores, nodes.numbers([-1])], keepdims=0)
        sums = nodes.one("ScatterND", [sums, at, more], reduction="add")
        made = self._blocks(nodes.one("MatMul", [own, self.cut(parts.values, segment)]))
        values = nodes.one("Gather", [self._blocks(parts.sorted_values), keys], axis=0)
        made = nodes.one("ScatterND", [made, at, nodes.one("MatMul", [scores, values])], reduction="add")
        made = nodes.one("Div", [made, nodes.one("Unsqueeze", [sums, nodes.numbers([-1])])])
        return nodes.one("Reshape", [made, self._shape(parts.queries, -1, -1)])

    def _pairs(self, parts: _Parts) -> tuple[ir.Value, ir.Value]:
        """For each pair of blocks that meet the number of that of queries, and of that of keys, of all there are."""
        nodes = self.nodes
        flat = nodes.one("NonZero", [nodes.reshaped(parts.kept, -1)], INT64)
        flat = nodes.reshaped(flat, -1)
        count, heads = (
            nodes.one("Squeeze", [nodes.size(parts.kept, 4)]),
            nodes.one("Squeeze", [nodes.size(parts.kept, 2)]),
        )
        queries, key = nodes.one("Div", [flat, count]), nodes.one("Mod", [flat, count])
        head = nodes.one("Div", [queries, nodes.one("Mul", [count, heads])])
        return queries, nodes.one("Add", [nodes.one("Mul", [head, count]), key])

    def _blocks(self, value: ir.Value) -> ir.Value:
        """Rows ``[..., d]`` as blocks ``[all, block, d]``."""
        nodes = self.nodes
        sizes = [nodes.numbers([-1, self._how.block]), nodes.size(value, -1)]
        return nodes.one("Reshape", [value, nodes.one("Concat", sizes, INT64, axis=0)])

    def _shape(self, value: ir.Value, end: int, last: int) -> ir.Value:
        """The sizes of a value, but for the last."""
        sizes = [self.nodes.one("Shape", [value], INT64, start=0, end=end), self.nodes.numbers([last])]
        return self.nodes.one("Concat", sizes, INT64, axis=0)


class _Masked(_Selection):
    """All scores, with a mask in the place of what is left out: it says what the other must compute."""

    def combined(self, parts: _Parts) -> ir.Value:
        nodes, block, segment = self.nodes, self._how.block, self._how.segment
        scores = nodes.one("MatMul", [parts.queries, nodes.transposed(parts.keys, 0, 1, 2, 4, 3)])
        place = nodes.many("TopK", [parts.order, nodes.numbers([segment])], [INT64, INT64], axis=-1, largest=0)[1]
        number = self._block_numbers(parts.queries)
        start = nodes.one("Mul", [nodes.one("Div", [number, nodes.whole(self.blocks)]), nodes.whole(self.blocks)])
        count = nodes.size(number, 0)
        first = nodes.one("Slice", [start, nodes.numbers([0]), count, nodes.numbers([0]), nodes.numbers([self.blocks])])
        sorted_block = nodes.one("Div", [place, nodes.whole(block)])
        sorted_block = nodes.one("Add", [sorted_block, nodes.one("Unsqueeze", [first, nodes.numbers([1])])])
        flat = nodes.reshaped(sorted_block, 0, 0, 1, 1, -1)
        sizes = nodes.one("Shape", [parts.kept], INT64, start=0, end=4)
        wide = nodes.one("Concat", [sizes, nodes.size(flat, 4)], INT64, axis=0)
        seen = nodes.one("GatherElements", [parts.kept, nodes.one("Expand", [flat, wide])], BOOL, axis=-1)
        rows = nodes.one("Range", [nodes.whole(0), nodes.one("Squeeze", [nodes.size(scores, 4)]), nodes.whole(1)])
        mine = nodes.one("Gather", [seen, nodes.one("Div", [rows, nodes.whole(block)])], axis=3)
        down, part = nodes.one("Unsqueeze", [rows, nodes.numbers([1])]), nodes.one("Div", [rows, nodes.whole(segment)])
        same = nodes.one("Equal", [nodes.one("Unsqueeze", [part, nodes.numbers([1])]), part], BOOL)
        own = nodes.one("And", [nodes.one("LessOrEqual", [rows, down], BOOL), same], BOOL)
        seen = nodes.one("Or", [mine, own], BOOL)
        bias = nodes.one("Where", [seen, nodes.real(0), nodes.real(HIDDEN)], ir.DataType.FLOAT)
        return nodes.one("MatMul", [nodes.one("Softmax", [nodes.one("Add", [scores, bias])], axis=-1), parts.values])
