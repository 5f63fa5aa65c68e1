"""One cache of an attention of which rows may go: what is fed, what is read of it, and what is returned."""

from collections.abc import Mapping

import onnx_ir as ir

from qcc.ir.encoding.cached.stored import StoredCache
from qcc.ir.graph.attention import Operand
from qcc.ir.onnx.attention.cache import END, ROWS, CacheWriter, ranked
from qcc.ir.onnx.attention.coded import CodedWriter
from qcc.ir.onnx.attention.nodes import INT64, NodeWriter
from qcc.ir.onnx.graph.edit import OnnxEditor

TYPES = {"places": INT64, "scores": ir.DataType.FLOAT}


class HeldRows:
    """Writes one cache.

    Args:
        model: of the cache.
        editor: of its graph.
        nodes: writes what stands around it.
        operand: of the attention that reads it.
        stored: how it is kept.
    """

    def __init__(
        self, model: ir.Model, editor: OnnxEditor, nodes: NodeWriter, operand: Operand, stored: StoredCache
    ) -> None:
        self._graph, self._editor, self._nodes = model.graph, editor, nodes
        self._operand, self._stored = operand, stored
        self.present = editor.value(operand.present)
        self._past = editor.value(operand.past)
        maker = self.present.producer()
        assert maker is not None
        new = maker.inputs[1]
        assert new is not None
        self._new = new
        self._codes = None if stored.rows is None else CodedWriter(nodes, stored.rows)
        self._shape = ranked(self.present.shape)
        fed = {"codes": self._past} if stored.rows is None else CacheWriter(model, editor, operand, stored.rows).fed()
        self.fed = {**fed, **self._told(fed["codes"])}
        for part, name in stored.part_names(operand.past).items():
            value = self.fed[part]
            value.shape = self._sizes(value.shape, f"{name} rows")
        self._parts: dict[str, ir.Value] = {}

    def _told(self, codes: ir.Value) -> dict[str, ir.Value]:
        """The inputs that tell of rows, behind those that hold them."""
        found, lead = dict[str, ir.Value](), self._shape
        for part, name in self._stored.part_names(self._operand.past).items():
            if part in TYPES:
                sizes = [None, self._operand.heads, None] if lead is None else [lead[0], self._operand.heads, None]
                found[part] = ir.Value(name=name, type=ir.TensorType(TYPES[part]), shape=ir.Shape(sizes))
        at = self._graph.inputs.index(codes) + 1
        self._graph.inputs[at:at] = list(found.values())
        return found

    @staticmethod
    def _sizes(shape: ir.Shape | None, rows: str) -> ir.Shape | None:
        if shape is None:
            return None
        sizes = list(shape)
        sizes[ROWS] = ir.SymbolicDim(rows)
        return ir.Shape(sizes)

    def sized(self, count: ir.Value) -> None:
        """Let what looks at the sizes of rows find those of the whole text, of which so many were before."""
        new = self._nodes.one("Add", [count, self._nodes.size(self._new, ROWS)])
        for value, rows in ((self._past, count), (self.present, new)):
            for node, _ in list(value.uses()):
                if node.op_type == "Shape":
                    self._size(node, rows)

    def _size(self, node: ir.Node, rows: ir.Value) -> None:
        nodes, operand = self._nodes, self._operand
        lead = nodes.one("Shape", [self.fed["codes"]], INT64, start=0, end=ROWS)
        sizes = nodes.one("Concat", [lead, rows, nodes.numbers([operand.width])], axis=0)
        ends = [node.attributes.get_int("start", 0), node.attributes.get_int("end", END)]
        made = nodes.one("Slice", [sizes, *(nodes.numbers([int(end)]) for end in ends)])
        made.shape = node.outputs[0].shape
        self._editor.take_place(node.outputs[0], made)

    def join(self, new: ir.Value) -> ir.Value:
        """The rows that are there with new ones behind, their channels as they are kept."""
        codes = self._codes
        parts = {"codes": new} if codes is None else codes.encoded(codes.moved(new))
        self._parts = {
            name: self._nodes.one("Concat", [self.fed[name], part], axis=ROWS) for name, part in parts.items()
        }
        return self._parts["codes"] if codes is None else codes.decoded(self._parts)

    def asked(self, queries: ir.Value, repeats: int) -> ir.Value:
        """Queries that meet keys as they are kept."""
        return queries if self._codes is None else self._codes.asked(queries, repeats)

    def given(self, made: ir.Value, repeats: int) -> ir.Value:
        """Sums of values of sums of values as they are kept."""
        return made if self._codes is None else self._codes.moved_back(made, repeats)

    def leave(self, stay: ir.Value, told: Mapping[str, ir.Value]) -> None:
        """Keep the rows of an index ``[batch, heads, rows]``, and what is told of them."""
        nodes = self._nodes
        index = nodes.one("Unsqueeze", [stay, nodes.numbers([-1])])
        kept = {name: nodes.one("GatherND", [part, index], batch_dims=ROWS) for name, part in self._parts.items()}
        self._parts = {**kept, **told}

    def give(self) -> None:
        """Return what stays in the place of all rows."""
        present = self.present
        names = self._stored.part_names(self._operand.present)
        at = next(at for at, value in enumerate(self._graph.outputs) if value is present)
        present.name = self._editor.fresh_name(f"{present.name}.whole")
        for part, name in names.items():
            made = self._parts[part]
            made.name, made.type = name, self.fed[part].type
            made.shape = self._sizes(self.fed[part].shape, f"{name} rows")
        self._graph.outputs[at : at + 1] = [self._parts[part] for part in names]
