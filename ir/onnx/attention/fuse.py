"""An attention as one op, the standard's own: what is legal, and how it is written.

`Attention` takes queries, keys and values as ``[batch, rows, heads * channels]``, as projections make them, so that
nothing is transposed around it, or all of them by heads; it puts rows of earlier runs in front. Scores get a bias of
all rows and columns. ONNX Runtime's own `MultiHeadAttention` and `GroupQueryAttention` are slower on CPUs, and take
less (docs/benchmarks.md).
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, Masking, Operand
from qcc.ir.graph.graph import Graph, needed
from qcc.ir.onnx.attention.nodes import INT64
from qcc.ir.onnx.attention.writer import LAYOUTS, AttentionWriter

AXES = 4  # of scores: samples, heads, rows and columns
LOWEST = float(np.finfo(np.float32).min)  # by which masks of exporters hide; the runtime takes it for infinite
HIDDEN = -1e38  # beside which no score counts either


def check_fusible(graph: Graph, one: Attention, mask_axes: int = AXES, again: bool = False) -> None:
    """See that the op computes an attention, behind masks of so many axes at most; ``again``: or does so already.

    Raises:
        Refused: it does not.
    """
    check_rewritable(graph, one, mask_axes, again)
    if ({one.keys.present, one.values.present} - {""}) & needed(graph, read_by(one)):
        raise Refused("what it reads depends on the rows that it gives to later runs")


def read_by(one: Attention) -> list[str]:
    """The values that an attention is made of, but for earlier rows."""
    operands = (one.queries, one.keys, one.values)
    reads = [operand.value for operand in operands] + [masking.value for masking in one.masking]
    reads += [name for operand in operands if (turn := operand.rotary) for name in (turn.cos, turn.sin)]
    return list(filter(None, reads))


def check_rewritable(graph: Graph, one: Attention, mask_axes: int = AXES, again: bool = False) -> None:
    """See that an attention is what the standard's op and those of its kind compute, whatever it depends on.

    ``again``: it may be that op, as long as that hides nothing itself.

    Raises:
        Refused: it is not.
    """
    operands = (one.queries, one.keys, one.values)
    held = {one.output, *(operand.value for operand in operands)}
    makers = {name: op for op in graph.ops() for name in op.outputs}
    whole = one.output not in makers or makers[one.output].name == one.name
    result = result_of(one) if whole and again else one.result
    faults = {
        "it is one op already": whole and not (again and makers[one.output].function == "attention"),
        "its op hides rows itself": whole and any(not masking.value for masking in one.masking),
        "others read its weights": one.weights_read,
        "its softmax counts further scores": bool(one.sinks),
        "its scores are bounded": one.cap is not None,
        "its scale hangs on how many rows there are": one.scale_varies,
        "it does not compute in float32": any(graph.value(name).dtype != "float32" for name in held),
        "how its result holds heads is not known": result is None or result.layout not in LAYOUTS,
        "how it holds heads is not known": any(operand.layout not in LAYOUTS for operand in operands),
        f"its mask has more than {('four', 'five')[mask_axes - AXES]} axes": any(
            len(graph.value(masking.value).shape or ()) > mask_axes for masking in one.masking if masking.value
        ),
        "keys and values have different heads": one.keys.heads != one.values.heads,
        "one of keys and values has rows of earlier runs": bool(one.keys.past) != bool(one.values.past),
        "what turns its channels is no rotation": any(not _turns(operand) for operand in operands),
    }
    if fault := next((text for text, found in faults.items() if found), ""):
        raise Refused(fault)


def result_of(one: Attention) -> Operand | None:
    """Where the result of an attention can be read last; of an op that is all of it, what that makes."""
    layout = {3: "bs(hd)", 4: "bhsd"}.get(len(one.shape), "")
    return one.result or Operand(one.output, one.queries.heads, one.values.width, layout)


def _turns(operand: Operand) -> bool:
    """Nothing turns the channels, or what the standard's op does."""
    return operand.rotary is None or (operand.rotary.paired and not operand.rotary.earlier)


def fuse(model: ir.Model, one: Attention) -> None:
    """Write the op in the place of what computes the attention; the model's opset is high enough."""
    StandardWriter(model, one).run()


class StandardWriter(AttentionWriter):
    """Writes the standard's op."""

    def attend(self, queries: ir.Value, keys: ir.Value, values: ir.Value) -> Sequence[ir.Value]:
        """With rows of earlier runs in front."""
        one = self.one
        pasts = [self.value(name) for name in (one.keys.past, one.values.past) if name]
        heads = {} if self.by_heads else {"q_num_heads": one.queries.heads, "kv_num_heads": one.keys.heads}
        floats = [queries.dtype] * (3 if pasts else 1)
        reads = [queries, keys, values, self.bias(queries, keys), *pasts]
        return self.nodes.many("Attention", reads, floats, scale=one.scale, **heads)

    def bias(self, queries: ir.Value, keys: ir.Value) -> ir.Value | None:
        """All that is added to scores or hides some, as ``[1 or batch, 1 or heads, rows, columns]``."""
        nodes, past = self.nodes, self.one.keys.past
        added = [self._added(masking, queries) for masking in self.one.masking]
        if not added:
            return None
        bias = added[0]
        for one in added[1:]:
            bias = nodes.one("Add", [bias, one])
        if any(masking.keeps is None for masking in self.one.masking):
            lowest = nodes.one("Equal", [bias, nodes.real(LOWEST)], ir.DataType.BOOL)
            bias = nodes.one("Where", [lowest, nodes.real(HIDDEN), bias], bias.dtype)
        if any(masking.whole and self.value(masking.value).producer() for masking in self.one.masking):
            return bias  # what is fed may have one row for all
        total = nodes.size(keys, self.row_axis)
        total = nodes.one("Add", [self.earlier(), total]) if past else total
        sizes = [nodes.numbers([1, 1]), nodes.size(queries, self.row_axis), total]
        return nodes.one("Expand", [bias, nodes.one("Concat", sizes, INT64, axis=0)])

    def earlier(self) -> ir.Value:
        """How many rows of earlier runs masks know of."""
        return self.nodes.size(self.value(self.one.keys.past), 2)

    def _added(self, masking: Masking, queries: ir.Value) -> ir.Value:
        """One of them as numbers."""
        nodes, value = self.nodes, self.value(masking.value)
        found = value
        if masking.keeps is not None:
            ends = [nodes.real(0), nodes.real(-np.inf if masking.infinite else HIDDEN)]
            found = nodes.one("Where", [value, *(ends if masking.keeps else ends[::-1])], ir.DataType.FLOAT)
        elif masking.scale != 1:
            found = nodes.one("Mul", [value, nodes.real(masking.scale)])
        return self._by_sample(found, queries) if len(value.shape or ()) > AXES else found

    def _by_sample(self, mask: ir.Value, queries: ir.Value) -> ir.Value:
        """A mask ``[images or 1, windows, heads or 1, rows, columns]`` of samples that are windows of images."""
        nodes = self.nodes
        images = nodes.one("Div", [nodes.size(queries, 0), nodes.size(mask, 1)])
        spread = nodes.one("Expand", [mask, nodes.one("Concat", [images, nodes.numbers([1] * AXES)], INT64, axis=0)])
        sizes = [nodes.numbers([-1]), nodes.one("Shape", [mask], INT64, start=2)]
        return nodes.one("Reshape", [spread, nodes.one("Concat", sizes, INT64, axis=0)])
