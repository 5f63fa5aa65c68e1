"""An attention over documents side by side, each in a batch of its own, with the standard's ops.

Rows are numbered by segment. Segment 0 is what all read, the largest number is what reads all, and each between is a
document that sees itself and segment 0. So documents, and segment 0 as one of them, are gathered to ``[batch *
documents, longest, channels]`` and meet their own keys behind those of segment 0; the last segment meets all.
"""

from collections.abc import Sequence

import onnx_ir as ir

from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, DocumentsApart
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.attention.fuse import HIDDEN, check_fusible
from qcc.ir.onnx.attention.nodes import INT64
from qcc.ir.onnx.attention.writer import AttentionWriter

BOOL, FLOAT = ir.DataType.BOOL, ir.DataType.FLOAT


def check_documents(graph: Graph, one: Attention, how: DocumentsApart) -> None:
    """See that documents of an attention can be taken apart.

    Raises:
        Refused: they cannot.
    """
    check_fusible(graph, one)
    if one.keys.past:
        raise Refused("rows of earlier runs come first")
    value = next((value for value in graph.inputs if value.name == how.input), None)
    if value is None or "int" not in value.dtype:
        raise Refused(f"`{how.input}` is no input of whole numbers")
    if value.shape is None or len(value.shape) not in (1, 2) or value.shape[:-1] not in ((), (1,)):
        raise Refused(f"`{how.input}` must have one number a row, the same for all samples of a batch")


def write_documents(model: ir.Model, one: Attention, how: DocumentsApart) -> None:
    """Write the ops; the model's opset is high enough."""
    _Documents(model, one, how.input).run()


class _Documents(AttentionWriter):
    def __init__(self, model: ir.Model, one: Attention, name: str) -> None:
        super().__init__(model, one, by_heads=False)
        self._segments = self.value(name)

    def attend(self, queries: ir.Value, keys: ir.Value, values: ir.Value) -> Sequence[ir.Value]:
        nodes, table = self.nodes, _Rows(self)
        own, behind = self._beside(queries, table), (self._behind(one, table) for one in (keys, values))
        apart = self._one_op([own, *behind, table.bias(queries)])
        back = nodes.one("Concat", [nodes.size(queries, 0), nodes.numbers([-1]), nodes.size(apart, 2)], INT64, axis=0)
        last = nodes.one("Gather", [queries, table.last], axis=1)
        made = [nodes.one("Reshape", [apart, back]), self._one_op([last, keys, values, table.later()])]
        return [nodes.one("Gather", [nodes.one("Concat", made, axis=1), table.places], axis=1)]

    def _one_op(self, reads: Sequence[ir.Value]) -> ir.Value:
        one, dtype = self.one, reads[0].dtype
        heads = {"q_num_heads": one.queries.heads, "kv_num_heads": one.keys.heads}
        return self.nodes.many("Attention", reads, [dtype], scale=one.scale, **heads)[0]

    def _beside(self, value: ir.Value, table: "_Rows") -> ir.Value:
        """Rows ``[batch, rows, channels]`` of all documents: ``[batch * documents, longest, channels]``."""
        return self._merged(self.nodes.one("Gather", [value, table.rows], axis=1))

    def _behind(self, value: ir.Value, table: "_Rows") -> ir.Value:
        """The same behind the rows of segment 0."""
        nodes = self.nodes
        own = nodes.one("Gather", [value, table.rows], axis=1)
        shared = nodes.one("Unsqueeze", [nodes.one("Gather", [value, table.shared], axis=1), nodes.numbers([1])])
        ones = [nodes.size(own, 0), nodes.size(own, 1), nodes.numbers([1, 1])]
        shared = nodes.one("Expand", [shared, nodes.one("Concat", ones, INT64, axis=0)])
        return self._merged(nodes.one("Concat", [shared, own], axis=2))

    def _merged(self, value: ir.Value) -> ir.Value:
        """Without the axis of documents, which joins the batch; no size is computed of others, so none may be 0."""
        nodes = self.nodes
        sizes = [nodes.numbers([-1]), nodes.one("Shape", [value], INT64, start=2, end=4)]
        return nodes.one("Reshape", [value, nodes.one("Concat", sizes, INT64, axis=0)])

    @property
    def segments(self) -> ir.Value:
        """The number of each row's segment, one axis."""
        given = self.nodes.one("Cast", [self._segments], INT64, to=int(INT64))
        return self.nodes.one("Reshape", [given, self.nodes.numbers([-1])])


class _Rows:
    """Which rows go where; every attention of a graph computes the same, of which one is left when it is cleaned.

    ``rows [documents, longest]`` are those of each document, filled up with row 0; ``shared`` those of segment 0,
    ``last`` those of the last segment, and ``places`` where each row is to be found among the results.
    """

    def __init__(self, owner: _Documents) -> None:
        nodes, segments = owner.nodes, owner.segments
        self._nodes, self._segments = nodes, segments
        one, zero = nodes.whole(1), nodes.whole(0)
        known, _, number, _ = nodes.many("Unique", [segments], [INT64] * 4, sorted=1)  # so that numbers may be any
        count = nodes.one("Max", [nodes.one("Sub", [nodes.one("Squeeze", [nodes.size(known, 0)]), one]), one])
        is_last = nodes.one("Equal", [segments, nodes.one("ReduceMax", [segments], keepdims=0)], BOOL)
        inside = nodes.one("Not", [is_last], BOOL)
        at, longest = self._places_inside(number, inside, count)
        self.last, rows = self._where(is_last), self._where(inside)
        is_shared = nodes.one("Equal", [segments, zero], BOOL)
        self.shared = self._where(nodes.one("And", [is_shared, inside], BOOL))
        ends = nodes.numbers([0]), nodes.one("Unsqueeze", [count, nodes.numbers([0])])
        self._is_shared = nodes.one("Equal", [nodes.one("Slice", [known, *ends]), zero], BOOL)
        total, target = nodes.one("Mul", [count, longest]), nodes.one("Gather", [at, rows], axis=0)
        empty = nodes.one("Expand", [zero, nodes.one("Unsqueeze", [total, nodes.numbers([0])])])
        shape = [nodes.numbers([-1]), nodes.one("Unsqueeze", [longest, nodes.numbers([0])])]
        self._shape, ones = nodes.one("Concat", shape, axis=0), nodes.one("Add", [nodes.one("Mul", [rows, zero]), one])
        self.rows, self._filled = (self._spread(empty, target, what) for what in (rows, ones))
        behind = nodes.one("Sub", [nodes.one("CumSum", [self._whole(is_last), zero]), one])
        self.places = nodes.one("Where", [inside, at, nodes.one("Add", [total, behind])], INT64)

    def _places_inside(self, number: ir.Value, inside: ir.Value, count: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Where rows of documents stand among the rows of all, filled up, and how long the longest is."""
        nodes, one = self._nodes, self._nodes.whole(1)
        numbers = nodes.one("Unsqueeze", [nodes.one("Range", [nodes.whole(0), count, one]), nodes.numbers([1])])
        member = self._whole(nodes.one("And", [nodes.one("Equal", [numbers, number], BOOL), inside], BOOL))
        counted = nodes.one("Mul", [member, nodes.one("CumSum", [member, one])])
        within = nodes.one("ReduceSum", [counted, nodes.numbers([0])], keepdims=0)
        longest = nodes.one("Max", [nodes.one("ReduceMax", [within], keepdims=0), one])
        return nodes.one("Sub", [nodes.one("Add", [nodes.one("Mul", [number, longest]), within]), one]), longest

    def _spread(self, empty: ir.Value, target: ir.Value, what: ir.Value) -> ir.Value:
        return self._nodes.one(
            "Reshape", [self._nodes.one("ScatterElements", [empty, target, what], axis=0), self._shape]
        )

    def bias(self, queries: ir.Value) -> ir.Value:
        """What is added to scores of documents, ``[batch * documents, 1, longest, shared + longest]``."""
        nodes = self._nodes
        mine = nodes.one("Unsqueeze", [self.rows, nodes.numbers([2])])
        own = nodes.one("Unsqueeze", [self.rows, nodes.numbers([1])])
        filled = nodes.one("Cast", [nodes.one("Unsqueeze", [self._filled, nodes.numbers([1])])], BOOL, to=int(BOOL))
        own = nodes.one("And", [nodes.one("LessOrEqual", [own, mine], BOOL), filled], BOOL)
        shared = nodes.one("LessOrEqual", [nodes.one("Unsqueeze", [self.shared, nodes.numbers([0, 1])]), mine], BOOL)
        first = nodes.one("Unsqueeze", [self._is_shared, nodes.numbers([1, 2])])
        shared = nodes.one("And", [shared, nodes.one("Not", [first], BOOL)], BOOL)
        seen = nodes.one("Unsqueeze", [nodes.one("Concat", [shared, own], BOOL, axis=2), nodes.numbers([0, 2])])
        sizes = nodes.one("Concat", [nodes.size(queries, 0), nodes.numbers([1, 1, 1, 1])], INT64, axis=0)
        whole = nodes.one("Expand", [self._added(seen), sizes])
        shape = [nodes.numbers([-1]), nodes.one("Shape", [whole], INT64, start=2, end=5)]
        return nodes.one("Reshape", [whole, nodes.one("Concat", shape, INT64, axis=0)])

    def later(self) -> ir.Value:
        """What is added to scores of the last segment, ``[1, 1, its rows, rows]``."""
        nodes = self._nodes
        count = nodes.one("Squeeze", [nodes.size(self._segments, 0)])
        column = nodes.one("Range", [nodes.whole(0), count, nodes.whole(1)])
        row = nodes.one("Unsqueeze", [self.last, nodes.numbers([1])])
        return self._added(
            nodes.one("Unsqueeze", [nodes.one("LessOrEqual", [column, row], BOOL), nodes.numbers([0, 1])])
        )

    def _added(self, seen: ir.Value) -> ir.Value:
        return self._nodes.one("Where", [seen, self._nodes.real(0), self._nodes.real(HIDDEN)], FLOAT)

    def _where(self, flags: ir.Value) -> ir.Value:
        """The places of what is true."""
        return self._nodes.one("Reshape", [self._nodes.one("NonZero", [flags], INT64), self._nodes.numbers([-1])])

    def _whole(self, flags: ir.Value) -> ir.Value:
        return self._nodes.one("Cast", [flags], INT64, to=int(INT64))
