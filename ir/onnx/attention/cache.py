"""Caches of an attention that hold codes: what is legal, and how it is written in standard ops."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.cached.rows import HALF, CachedRows
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, Operand
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.attention.coded import CodedWriter
from qcc.ir.onnx.attention.nodes import INT64, NodeWriter
from qcc.ir.onnx.graph.edit import OnnxEditor

CACHE_OPSET = 18
ROWS, RANK = 2, 4
END = np.iinfo(np.int64).max


def check_cache(graph: Graph, one: Attention, keys: CachedRows | None, values: CachedRows | None) -> None:
    """See that the caches of an attention can hold codes.

    Raises:
        Refused: they cannot.
    """
    makers = {name: op for op in graph.ops() for name in op.outputs}
    fed = {value.name for value in graph.inputs}
    for operand, rows in ((one.keys, keys), (one.values, values)):
        if rows is None:
            continue
        if not operand.past or not operand.present or operand.past not in fed:
            raise Refused("it is fed no rows of earlier runs, or returns none")
        maker = makers[operand.present]
        joined = maker.function == "concat" and len(maker.inputs) == 2 and maker.inputs[0] == operand.past
        if not joined and not (maker.function == "attention" and not maker.attributes.get("causal")):
            raise Refused(f"`{operand.present}` is not made of `{operand.past}` and new rows alone")
        if graph.value(operand.past).dtype != "float32":
            raise Refused(f"`{operand.past}` is {graph.value(operand.past).dtype} and not float32")
        if rows.gain.shape != (operand.heads, operand.width):
            raise Refused(f"`{operand.past}` holds {operand.heads} heads of {operand.width} channels")
        readers = [op for op in graph.ops() if operand.past in op.inputs]
        if any(op is not maker and op.function != "shape" for op in readers):
            raise Refused(f"others read `{operand.past}`, too")
        if rows.centre.any() and (one.sinks or one.cap is not None):
            raise Refused("scores that are bounded, or counted beside others, leave no zero points")


def write_codes(model: ir.Model, one: Attention, keys: CachedRows | None, values: CachedRows | None) -> None:
    """Let the caches of an attention hold codes, in standard ops.

    Rewrite:
        k = Concat(past, new)  -->  codes = Concat(past codes, encode(new)), k = decode(codes)

    What is fed and returned under the caches' names is codes then, and scales beside them where rows have some.
    """
    editor = OnnxEditor(model.graph)
    maker = editor.value(one.keys.present or one.values.present).producer()
    if maker is not None and maker.op_type == "Attention":
        one = _spread(editor, one, maker)
        editor = OnnxEditor(model.graph)
    repeats = one.queries.heads // one.keys.heads
    if keys is not None:
        aside = _reader(editor, one.queries) if _alone(editor, one.keys) and one.queries.stands else None
        writer = CacheWriter(model, editor, one.keys, keys)
        writer.write(moves_back=aside is None)
        if aside is not None:
            writer.ask(*aside, repeats)
    if values is not None:
        aside_too = _alone(editor, one.values) and one.stands
        writer = CacheWriter(model, editor, one.values, values)
        writer.write(moves_back=not aside_too)
        if aside_too:
            writer.give_back(editor.value(one.output), repeats)
    model.graph.sort()


def _spread(editor: OnnxEditor, one: Attention, node: ir.Node) -> Attention:
    """Let the standard's op be given all rows, put together before it, and read everything by heads."""
    nodes = NodeWriter(editor, node, f"{one.name}.spread")
    flat = "q_num_heads" in node.attributes
    read = [value for value in node.inputs[:3] if value is not None]
    if flat:
        heads = one.queries.heads, one.keys.heads, one.values.heads
        apart = [nodes.reshaped(value, 0, 0, count, -1) for value, count in zip(read, heads, strict=True)]
        read = [nodes.transposed(value, 0, 2, 1, 3) for value in apart]
    for at, (past, present) in enumerate(zip(node.inputs[4:6], node.outputs[1:3], strict=True), 1):
        assert past is not None
        read[at] = nodes.one("Concat", [past, read[at]], axis=ROWS)
        read[at].type, read[at].shape = present.type, present.shape
    kept = [one for one in node.attributes.values() if not one.name.endswith("num_heads")]
    new = ir.Node("", "Attention", [*read, *node.inputs[3:4]], kept, num_outputs=1)
    new.name, new.outputs[0].name = editor.fresh_name(f"{one.name}.whole"), editor.fresh_name(f"{one.output}.by_heads")
    new.outputs[0].type = node.outputs[0].type
    assert node.graph is not None
    node.graph.insert_before(node, new)
    made = new.outputs[0]
    if flat:
        made = nodes.reshaped(nodes.transposed(made, 0, 2, 1, 3), 0, 0, -1)
    made.type, made.shape = node.outputs[0].type, node.outputs[0].shape
    node.graph.sort()
    for old, value in zip(node.outputs, (made, *read[1:]), strict=True):
        editor.take_place(old, value)
    by_heads = replace(one.queries, way=(read[0].name or "",), stands=True)
    return replace(one, queries=by_heads, output=new.outputs[0].name or "", stands=True)


def _alone(editor: OnnxEditor, operand: Operand) -> bool:
    """Nothing but the product of the attention sees the rows, and it reads them head by head."""
    way = operand.way[: operand.way.index(operand.present) + 1] if operand.present in operand.way else ()
    return bool(way) and all(len(_uses(editor.value(name))) == 1 for name in way)


def _uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """The uses of a value but for those that look at its shape."""
    return [(node, at) for node, at in value.uses() if node.op_type != "Shape"]


def _reader(editor: OnnxEditor, queries: Operand) -> tuple[ir.Node, int] | None:
    """Where the product reads the queries; None where others read the same."""
    uses = _uses(editor.value(queries.way[0])) if queries.way else []
    return uses[0] if len(uses) == 1 else None


def ranked(shape: ir.Shape | None) -> ir.Shape | None:
    """A shape with the axes of rows by heads; none where it tells others."""
    return shape if shape is not None and len(shape) == RANK else None


class CacheWriter:
    """Writes one cache.

    Args:
        model: of the cache.
        editor: of its graph.
        operand: of the attention that reads it.
        rows: how they are kept.
    """

    def __init__(self, model: ir.Model, editor: OnnxEditor, operand: Operand, rows: CachedRows) -> None:
        self._graph, self._editor, self._operand, self.rows = model.graph, editor, operand, rows
        self.past, self.present = editor.value(operand.past), editor.value(operand.present)
        maker = self.present.producer()
        assert maker is not None
        self._maker = maker
        self._nodes = NodeWriter(editor, maker, f"{operand.past}.kept")
        self._coded = CodedWriter(self._nodes, rows)

    def write(self, moves_back: bool) -> None:
        """Write the codes, and let all that read the rows read what the codes stand for."""
        past, present = self.past, self.present
        new = self._maker.inputs[1]
        assert new is not None
        inputs = self.fed()
        outputs = dict[str, ir.Value]()
        if self.rows.first:
            outputs["first"], new = self._first(inputs["first"], new)
        parts = self._coded.encoded(self._coded.moved(new))
        for name, part in parts.items():
            outputs[name] = self._nodes.one("Concat", [inputs[name], part], axis=ROWS)
        full = self._coded.decoded(outputs)
        if self.rows.first:
            full = self._nodes.one("Concat", [self._coded.moved(outputs["first"]), full], axis=ROWS)
        full = self._coded.moved_back(full) if moves_back else full
        full.shape = ranked(present.shape)
        self.give(outputs)
        for node, position in list(present.uses()):
            node.replace_input_with(position, full)
        self.sized(past, inputs)
        self._editor.sweep(present)

    def ask(self, product: ir.Node, position: int, repeats: int) -> None:
        """Let queries meet keys as they are kept."""
        queries = product.inputs[position]
        assert queries is not None
        coded = CodedWriter(NodeWriter(self._editor, product, f"{queries.name}.asked"), self.rows)
        product.replace_input_with(position, coded.asked(queries, repeats))

    def give_back(self, output: ir.Value, repeats: int) -> None:
        """Let the sums of values be sums of what they stand for."""
        uses, maker = list(output.uses()), output.producer()
        assert maker is not None
        coded = CodedWriter(NodeWriter(self._editor, maker, f"{output.name}.given"), self.rows)
        made = coded.moved_back(output, repeats)
        if made is output:
            return
        made.type, made.shape = output.type, ranked(output.shape)
        for node, position in uses:
            node.replace_input_with(position, made)
        if output.is_graph_output():
            self._editor.take_name(output, made)

    def fed(self) -> dict[str, ir.Value]:
        """The inputs that take the place of one of floats, which is left to what reads it."""
        past = self.past
        names, at = self.rows.part_names(self._operand.past), self._graph.inputs.index(past)
        past.name = self._editor.fresh_name(f"{past.name}.float")
        found = {part: self._part(part, name, past.shape) for part, name in names.items()}
        self._graph.inputs[at : at + 1] = list(found.values())
        return found

    def give(self, outputs: dict[str, ir.Value]) -> None:
        """Return the parts in the place of floats."""
        present = self.present
        names = self.rows.part_names(self._operand.present)
        at = next(at for at, value in enumerate(self._graph.outputs) if value is present)
        present.name = self._editor.fresh_name(f"{present.name}.float")
        for part, name in names.items():
            like = self._part(part, name, present.shape)
            outputs[part].name, outputs[part].type, outputs[part].shape = name, like.type, like.shape
        self._graph.outputs[at : at + 1] = [outputs[part] for part in names]

    def _part(self, part: str, name: str, shape: ir.Shape | None) -> ir.Value:
        rows = self.rows
        dtype = {"codes": rows.code_type, "scale": rows.scale_type, "first": np.float32}[part]
        width = rows.gain.shape[1]
        last = {"codes": width // (2 if rows.bits == HALF else 1), "scale": width // rows.size, "first": width}[part]
        known = ranked(shape)
        sizes = list(known) if known is not None else [None, rows.gain.shape[0], None, None]
        sizes[-1] = last
        if rows.first:
            sizes[ROWS] = ir.SymbolicDim(f"{name} rows")
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype))), shape=ir.Shape(sizes))

    def _first(self, held: ir.Value, new: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The first rows that stay floats, and those that do not."""
        nodes, count = self._nodes, self.rows.first
        left = nodes.one("Sub", [nodes.numbers([count]), nodes.size(held, ROWS)], INT64)
        axis = nodes.numbers([ROWS])
        head = nodes.one("Slice", [new, nodes.numbers([0]), left, axis])
        rest = nodes.one("Slice", [new, left, nodes.numbers([END]), axis])
        return nodes.one("Concat", [held, head], axis=ROWS), rest

    def sized(self, past: ir.Value, inputs: dict[str, ir.Value]) -> None:
        """Let what looks at the sizes of the floats that were fed find them."""
        for node, _ in list(past.uses()):
            if node is self._maker:
                continue
            nodes = NodeWriter(self._editor, node, f"{self._operand.past}.sizes")
            rows = [nodes.size(inputs[part], ROWS) for part in ("codes", "first") if part in inputs]
            total = rows[0] if len(rows) == 1 else nodes.one("Add", rows, INT64)
            width = nodes.numbers([self.rows.gain.shape[1]])
            lead = nodes.one("Shape", [inputs["codes"]], INT64, start=0, end=ROWS)
            sizes = nodes.one("Concat", [lead, total, width], axis=0)
            ends = [node.attributes.get_int("start", 0), node.attributes.get_int("end", END)]
            made = nodes.one("Slice", [sizes, *(nodes.numbers([int(end)]) for end in ends)])
            made.shape = node.outputs[0].shape
            self._editor.take_place(node.outputs[0], made)
