"""An attention as one op, the standard's own: what is legal, and how it is written.

`Attention` takes queries, keys and values as ``[batch, rows, heads * channels]``, as projections make them, so that
nothing is transposed around it, or all of them by heads; it puts rows of earlier runs in front. Scores get a bias of
all rows and columns. ONNX Runtime's own `MultiHeadAttention` and `GroupQueryAttention` are slower on CPUs, and take
less (docs/benchmarks.md).
"""

import numpy as np
import onnx_ir as ir

from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, Masking, Operand
from qcc.ir.graph.graph import Graph, needed
from qcc.ir.onnx.attention.nodes import INT64, NodeWriter
from qcc.ir.onnx.graph.edit import OnnxEditor

OPSET = 23
LOWEST = float(np.finfo(np.float32).min)  # by which masks of exporters hide; the runtime takes it for infinite
HIDDEN = -1e38  # beside which no score counts either
HEADS = "bhsd"
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


def check_fusible(graph: Graph, one: Attention) -> None:
    """See that the op computes an attention.

    Raises:
        Refused: it does not.
    """
    operands = (one.queries, one.keys, one.values)
    held = {one.output, *(operand.value for operand in operands)}
    makers = {name: op for op in graph.ops() for name in op.outputs}
    faults = {
        "it is one op already": one.output not in makers or makers[one.output].name == one.name,
        "others read its weights": one.weights_read,
        "its softmax counts further scores": bool(one.sinks),
        "its scores are bounded": one.cap is not None,
        "it does not compute in float32": any(graph.value(name).dtype != "float32" for name in held),
        "how its result holds heads is not known": one.result is None or one.result.layout not in LAYOUTS,
        "how it holds heads is not known": any(operand.layout not in LAYOUTS for operand in operands),
        "keys and values have different heads": one.keys.heads != one.values.heads,
        "one of keys and values has rows of earlier runs": bool(one.keys.past) != bool(one.values.past),
        "what turns its channels is no rotation": any(not _turns(operand) for operand in operands),
    }
    if fault := next((text for text, found in faults.items() if found), ""):
        raise Refused(fault)
    presents = {one.keys.present, one.values.present} - {""}
    reads = [operand.value for operand in operands] + [masking.value for masking in one.masking]
    reads += [name for operand in operands if (turn := operand.rotary) for name in (turn.cos, turn.sin)]
    if presents & needed(graph, filter(None, reads)):
        raise Refused("what it reads depends on the rows that it gives to later runs")


def _turns(operand: Operand) -> bool:
    """Nothing turns the channels, or what the standard's op does."""
    return operand.rotary is None or (operand.rotary.paired and not operand.rotary.earlier)


def fuse(model: ir.Model, one: Attention) -> None:
    """Write the op in the place of what computes the attention; the model's opset is high enough."""
    _Fuser(model, one).run()
    model.graph.sort()


class _Fuser:
    def __init__(self, model: ir.Model, one: Attention) -> None:
        self._editor, self._one = OnnxEditor(model.graph), one
        maker = self._value(one.output).producer()
        assert maker is not None
        self._nodes = NodeWriter(self._editor, maker, f"{one.name}.fused")
        operands = (one.queries, one.keys, one.values)
        self._by_heads = {operand.layout for operand in operands} == {HEADS}

    def run(self) -> None:
        """Write it, and let all that reads the old values read the new ones."""
        one = self._one
        queries, keys, values = (self._rows(operand) for operand in (one.queries, one.keys, one.values))
        bias = self._bias(queries, keys)
        turned = [self._turned(rows, operand) for rows, operand in ((queries, one.queries), (keys, one.keys))]
        pasts = [self._value(name) for name in (one.keys.past, one.values.past) if name]
        heads = {} if self._by_heads else {"q_num_heads": one.queries.heads, "kv_num_heads": one.keys.heads}
        floats = [queries.dtype] * (3 if pasts else 1)
        reads = [*turned, values, bias, *pasts]
        made = self._nodes.many("Attention", reads, floats, scale=one.scale, **heads)
        assert one.result is not None
        self._take(self._value(one.result.value), self._laid_out(made[0], one.result))
        for name, new in zip((one.keys.present, one.values.present), made[1:], strict=False):
            if name:
                self._take(self._value(name), new)

    def _value(self, name: str) -> ir.Value:
        return self._editor.value(name)

    def _take(self, old: ir.Value, new: ir.Value) -> None:
        new.type, new.shape = old.type, old.shape
        self._editor.take_place(old, new)

    def _rows(self, operand: Operand) -> ir.Value:
        """Queries, keys or values as ``[batch, rows, heads * channels]``, or as they are by heads."""
        value, nodes = self._value(operand.value), self._nodes
        if self._by_heads:
            return value
        if order := LAYOUTS[operand.layout]:
            value = nodes.transposed(value, *order)
        return value if "(hd)" in operand.layout else nodes.reshaped(value, 0, 0, -1)

    def _laid_out(self, made: ir.Value, result: Operand) -> ir.Value:
        """The result as it was held."""
        nodes, layout = self._nodes, result.layout
        if self._by_heads:
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
        rotary, nodes = operand.rotary, self._nodes
        if rotary is None:
            return rows
        sizes = [nodes.size(rows, 0), nodes.size(rows, self._row_axis), nodes.numbers([rotary.width // 2])]
        shape = nodes.one("Concat", sizes, INT64, axis=0)
        tables = [self._table(name, rotary.layout, rotary.width, shape) for name in (rotary.cos, rotary.sin)]
        flags = {"interleaved": int(rotary.layout == "interleaved")}
        flags |= {} if self._by_heads else {"num_heads": operand.heads}
        flags |= {} if rotary.width == operand.width else {"rotary_embedding_dim": rotary.width}
        made = nodes.many("RotaryEmbedding", [rows, *tables], [rows.dtype], **flags)[0]
        made.shape = rows.shape
        return made

    def _table(self, name: str, layout: str, width: int, shape: ir.Value) -> ir.Value:
        """Cosines or sines as ``[batch, rows, pairs]``."""
        nodes, half, table = self._nodes, width // 2, self._value(name)
        last = None if table.shape is None else table.shape[-1]
        if last != half:
            end, step = (half, 1) if layout == "half" else (width, 2)
            table = nodes.one("Slice", [table, *(nodes.numbers([one]) for one in (0, end, -1, step))])
        rows = nodes.one("Slice", [shape, *(nodes.numbers([one]) for one in (1, 3))])  # one table may serve all samples
        own = nodes.one("Concat", [nodes.numbers([-1]), rows], INT64, axis=0)
        return nodes.one("Expand", [nodes.one("Reshape", [table, own]), shape])

    @property
    def _row_axis(self) -> int:
        return 2 if self._by_heads else 1

    def _bias(self, queries: ir.Value, keys: ir.Value) -> ir.Value | None:
        """All that is added to scores or hides some, as ``[1 or batch, 1 or heads, rows, columns]``."""
        nodes, past = self._nodes, self._one.keys.past
        added = [self._added(masking) for masking in self._one.masking]
        if not added:
            return None
        bias = added[0]
        for one in added[1:]:
            bias = nodes.one("Add", [bias, one])
        if any(masking.keeps is None for masking in self._one.masking):
            lowest = nodes.one("Equal", [bias, nodes.real(LOWEST)], ir.DataType.BOOL)
            bias = nodes.one("Where", [lowest, nodes.real(HIDDEN), bias], bias.dtype)
        if any(masking.whole and self._value(masking.value).producer() for masking in self._one.masking):
            return bias  # what is fed may have one row for all
        total = nodes.size(keys, self._row_axis)
        total = nodes.one("Add", [nodes.size(self._value(past), 2), total]) if past else total
        sizes = [nodes.numbers([1, 1]), nodes.size(queries, self._row_axis), total]
        return nodes.one("Expand", [bias, nodes.one("Concat", sizes, INT64, axis=0)])

    def _added(self, masking: Masking) -> ir.Value:
        """One of them as numbers."""
        nodes, value = self._nodes, self._value(masking.value)
        if masking.keeps is not None:
            ends = [nodes.real(0), nodes.real(-np.inf if masking.infinite else HIDDEN)]
            return nodes.one("Where", [value, *(ends if masking.keeps else ends[::-1])], ir.DataType.FLOAT)
        return value if masking.scale == 1 else nodes.one("Mul", [value, nodes.real(masking.scale)])
