"""What stands around whatever computes an attention: queries, keys and values as it takes them, the result as it was.

They are read where projections make them, ``[batch, rows, heads * channels]``, or all by heads, with the standard's
rotary embedding where channels turn.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import onnx_ir as ir

from qcc.ir.graph.attention import Attention, Operand, Rotary
from qcc.ir.onnx.attention.nodes import INT64, NodeWriter
from qcc.ir.onnx.graph.edit import OnnxEditor

HEADS = "bhsd"
TABLES = "qcc.rotary"  # of a node: what its tables were made for
LAYOUTS: dict[str, tuple[int, ...]] = {
    "bs(hd)": (),
    "bshd": (),
    HEADS: (0, 2, 1, 3),
    "bhds": (0, 3, 1, 2),
    "sbhd": (1, 0, 2, 3),
    "b(hd)s": (0, 2, 1),
    "sb(hd)": (1, 0, 2),
}
"""How each layout is read as batch, rows, heads and channels."""


class AttentionWriter(ABC):
    """Writes an attention in the place of what computes it.

    Args:
        model: of opset 23 at least.
        one: what is replaced, which `check_fusible` found nothing wrong with.
        by_heads: queries, keys and values stay as they are where all of them are held by heads.
    """

    def __init__(self, model: ir.Model, one: Attention, by_heads: bool = True) -> None:
        self.editor, self.one, self._model = OnnxEditor(model.graph), one, model
        maker = self.value(one.output).producer()
        assert maker is not None
        self.nodes = NodeWriter(self.editor, maker, f"{one.name}.fused")
        operands = (one.queries, one.keys, one.values)
        self.by_heads = by_heads and {operand.layout for operand in operands} == {HEADS}

    @abstractmethod
    def attend(self, queries: ir.Value, keys: ir.Value, values: ir.Value) -> Sequence[ir.Value]:
        """What is computed of turned queries and keys and of values, as these are held; keys and values for later."""

    def run(self) -> None:
        """Write it, and let all that reads the old values read the new ones."""
        one = self.one
        queries, keys, values = (self._rows(operand) for operand in (one.queries, one.keys, one.values))
        turned, keys = self._turned(queries, one.queries), self._turned(keys, one.keys)
        made = self.attend(self._scaled(turned) if one.head_scales else turned, keys, values)
        assert one.result is not None
        self.take(self.value(one.result.value), self._laid_out(made[0], one.result))
        for name, new in zip((one.keys.present, one.values.present), made[1:], strict=False):
            if name:
                self.take(self.value(name), new)
        self._model.graph.sort()
        middle = made[0].producer()
        if middle is not None and all(node.name != one.name for node in self._model.graph):
            middle.name = one.name  # rules that run later know it by that

    def value(self, name: str) -> ir.Value:
        """A value of the graph."""
        return self.editor.value(name)

    def take(self, old: ir.Value, new: ir.Value) -> None:
        """Let all that reads an old value read a new one."""
        new.type, new.shape = old.type, old.shape
        self.editor.take_place(old, new)

    def _rows(self, operand: Operand) -> ir.Value:
        """Queries, keys or values as ``[batch, rows, heads * channels]``, or as they are by heads."""
        value, nodes = self.value(operand.value), self.nodes
        if self.by_heads:
            return value
        if order := LAYOUTS[operand.layout]:
            value = nodes.transposed(value, *order)
        return value if "(hd)" in operand.layout else nodes.reshaped(value, 0, 0, -1)

    def _scaled(self, queries: ir.Value) -> ir.Value:
        """Queries times a number a head, which their scores have."""
        nodes, scales = self.nodes, self.value(self.one.head_scales)
        if self.by_heads:
            return nodes.one("Mul", [queries, scales])
        heads = self.one.queries.heads
        split = nodes.reshaped(queries, 0, 0, heads, -1)
        made = nodes.reshaped(nodes.one("Mul", [split, nodes.reshaped(scales, heads, 1)]), 0, 0, -1)
        made.shape = queries.shape
        return made

    def _laid_out(self, made: ir.Value, result: Operand) -> ir.Value:
        """The result as it was held."""
        nodes, layout = self.nodes, result.layout
        if self.by_heads:
            if layout == HEADS:
                return made
            made = nodes.transposed(made, *LAYOUTS[HEADS])
            made = nodes.reshaped(made, 0, 0, -1) if "(hd)" in layout else made
        elif "(hd)" not in layout:
            made = nodes.reshaped(made, 0, 0, result.heads, -1)
        order = LAYOUTS[layout]
        return nodes.transposed(made, *map(order.index, range(len(order)))) if order else made

    def _turned(self, rows: ir.Value, operand: Operand) -> ir.Value:
        """With the standard's rotary embedding, whose tables hold a number a pair, row and sample."""
        rotary, nodes = operand.rotary, self.nodes
        if rotary is None:
            return rows
        tables = self._tables(rows, rotary)
        flags = {"interleaved": int(rotary.layout == "interleaved")}
        flags |= {} if self.by_heads else {"num_heads": operand.heads}
        flags |= {} if rotary.width == operand.width else {"rotary_embedding_dim": rotary.width}
        made = nodes.many("RotaryEmbedding", [rows, *tables], [rows.dtype], **flags)[0]
        made.shape = rows.shape
        maker = made.producer()
        assert maker is not None
        maker.meta[TABLES] = self._sizes(rows), rotary
        return made

    def _tables(self, rows: ir.Value, rotary: Rotary) -> Sequence[ir.Value]:
        """Cosines and sines; those of another attention where as many rows of as many samples turn alike."""
        if (sizes := self._sizes(rows)) is not None:
            for node in self._model.graph:
                if node.meta.get(TABLES) == (sizes, rotary):
                    return [one for one in node.inputs[1:] if one is not None]
        nodes = self.nodes
        numbers = [nodes.size(rows, 0), nodes.size(rows, self.row_axis), nodes.numbers([rotary.width // 2])]
        shape = nodes.one("Concat", numbers, INT64, axis=0)
        return [self._table(name, rotary.layout, rotary.width, shape) for name in (rotary.cos, rotary.sin)]

    def _sizes(self, rows: ir.Value) -> tuple[int | str, ...] | None:
        """How many samples and rows there are, by number or name; None where one has none."""
        if rows.shape is None:
            return None
        found = [rows.shape[axis] for axis in (0, self.row_axis)]
        named = [one if isinstance(one, int) else one.value for one in found]
        return None if None in named else tuple(one for one in named if one is not None)

    def _table(self, name: str, layout: str, width: int, shape: ir.Value) -> ir.Value:
        """Cosines or sines as ``[batch, rows, pairs]``."""
        nodes, half, table = self.nodes, width // 2, self.value(name)
        last = None if table.shape is None else table.shape[-1]
        if last != half:
            end, step = (half, 1) if layout == "half" else (width, 2)
            table = nodes.one("Slice", [table, *(nodes.numbers([one]) for one in (0, end, -1, step))])
        rows = nodes.one("Slice", [shape, *(nodes.numbers([one]) for one in (1, 3))])  # one table may serve all samples
        own = nodes.one("Concat", [nodes.numbers([-1]), rows], INT64, axis=0)
        return nodes.one("Expand", [nodes.one("Reshape", [table, own]), shape])

    @property
    def row_axis(self) -> int:
        """The axis of rows of queries, keys and values."""
        return 2 if self.by_heads else 1
