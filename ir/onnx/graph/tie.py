"""Storing an embedding's table once where the exporter has folded its tied head's transposition."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from qcc.ir.onnx.file.load import array_of
from qcc.ir.onnx.graph.kinds import DEFAULT_DOMAINS
from qcc.ir.onnx.graph.layers import FLOATS

WORTHWHILE_BYTES = 4096
BLOCK_BYTES = 1 << 22  # of a table compared at a time


class TieTransposed(ir.passes.InPlacePass):
    """``Gather(W, i), MatMul(x, W^T)  -->  Gather(W, i), MatMul(x, Transpose(W))`` where both constants are stored.

    Only for tables: a product of any other constant keeps the layout that fused kernels take.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Tie."""
        modified = False
        for table in _tables(model.graph):
            for other in _shaped(model.graph, _shape(table)[::-1], table):
                if not _is_table(other) and _are_transposed(table, other):
                    _tie(model.graph, table, other)
                    modified = True
        return ir.passes.PassResult(model, modified)


def _tables(graph: ir.Graph) -> list[ir.Value]:
    return [value for value in graph.initializers.values() if _may_be_tied(value) and _is_table(value)]


def _shaped(graph: ir.Graph, shape: tuple[int, ...], table: ir.Value) -> Iterator[ir.Value]:
    for value in list(graph.initializers.values()):
        if value is not table and _may_be_tied(value) and value.dtype is table.dtype and _shape(value) == shape:
            yield value


def _may_be_tied(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or value.is_graph_output():
        return False
    return tensor.dtype in FLOATS and len(tensor.shape) == 2 and tensor.nbytes >= WORTHWHILE_BYTES


def _is_table(value: ir.Value) -> bool:
    """An embedding reads its rows."""
    return any(
        node.op_type == "Gather" and node.domain in DEFAULT_DOMAINS and index == 0 for node, index in value.uses()
    )


def _shape(value: ir.Value) -> tuple[int, ...]:
    tensor = value.const_value
    return () if tensor is None else tuple(int(size) for size in tensor.shape.numpy())


def _are_transposed(left: ir.Value, right: ir.Value) -> bool:
    """Bit for bit, block after block, so that the first that differs ends it and no copy of a table is held."""
    one, other = array_of(left), array_of(right)
    if one is None or other is None:
        return False
    bits = f"u{one.dtype.itemsize}"  # not-a-numbers equal themselves, and zeros have signs
    one, other = one.view(bits), other.view(bits)
    step = max(BLOCK_BYTES // max(one[:1].nbytes, 1), 1)
    starts = range(0, len(one), step)
    return all(np.array_equal(one[start : start + step], other[:, start : start + step].T) for start in starts)


def _tie(graph: ir.Graph, table: ir.Value, other: ir.Value) -> None:
    name, shape = other.name or "", _shape(other)
    node = ir.Node("", "Transpose", [table], [ir.AttrInt64s("perm", [1, 0])])
    (output,) = node.outputs
    graph.insert_before(graph[0], node)  # a subgraph of any later node may read it
    other.replace_all_uses_with(output)
    del graph.initializers[name]
    output.name, output.shape, output.type = name, ir.Shape(shape), table.type
    node.name = f"{name}/Transpose"
