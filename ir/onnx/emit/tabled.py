"""What is looked up, in standard ops: codes of numbers by ``QuantizeLinear``, places of an input by comparing it."""

import math

import numpy as np
import onnx_ir as ir

from qcc.ir.onnx.attention.nodes import NodeWriter
from qcc.ir.onnx.graph.edit import OnnxEditor
from qcc.ir.vocabulary.tabled import (
    LookupTable,
    Tabled,
    TabledByCode,
    TabledFactor,
    TabledFunction,
    TabledNorm,
    TabledSoftmax,
)

BYTE = 256  # codes of eight bits; more are of sixteen
REDUCE_OPSET, WIDE_OPSET = 18, 21  # ReduceMax reads its axes; QuantizeLinear makes 16 bits


def tabled_opset(one: Tabled) -> int:
    """The lowest that has the ops around a table."""
    return WIDE_OPSET if isinstance(one, TabledByCode) and one.table.size > BYTE else REDUCE_OPSET


def write_tabled(model: ir.Model, one: Tabled) -> None:
    """Make a value with a table; what only its old making needed goes."""
    editor = OnnxEditor(model.graph)
    old, source = editor.value(one.result), editor.value(one.source)
    maker = old.producer()
    assert maker is not None
    nodes = NodeWriter(editor, maker, f"{one.result}.tabled")
    if isinstance(one, TabledSoftmax):
        found = _softmax(nodes, source, one)
    elif isinstance(one, TabledNorm):
        found = _norm(nodes, editor, source, one)
    elif isinstance(one, TabledFactor):
        found = _factor(nodes, source, editor.value(one.by), one)
    else:
        assert isinstance(one, TabledFunction)
        found = _looked_up(nodes, source, one.table)
    found.type, found.shape = old.type, old.shape
    for reader, position in list(old.uses()):
        reader.replace_input_with(position, found)
    editor.take_name(old, found)
    editor.sweep(old)


def _looked_up(nodes: NodeWriter, x: ir.Value, table: LookupTable) -> ir.Value:
    """The table's numbers in the place of some."""
    wide = table.size > BYTE
    dtype = np.uint16 if wide else np.uint8
    if table.size not in (BYTE, BYTE**2):
        x = nodes.one("Clip", [x, *(nodes.real(float(end)) for end in table.ends)])
    how = [nodes.real(float(table.step)), nodes.array(np.array(table.zero, dtype))]
    codes = nodes.one("QuantizeLinear", [x, *how], ir.DataType.UINT16 if wide else ir.DataType.UINT8)
    codes = nodes.cast(codes, ir.DataType.INT32)
    return nodes.one("Gather", [nodes.array(table.numbers), codes], ir.DataType.FLOAT)


def _softmax(nodes: NodeWriter, x: ir.Value, one: TabledSoftmax) -> ir.Value:
    axis = nodes.numbers([one.axis])
    below = nodes.one("Sub", [x, nodes.one("ReduceMax", [x, axis], keepdims=1)])
    found = _looked_up(nodes, below, one.table)
    return nodes.one("Div", [found, nodes.one("ReduceSum", [found, axis], keepdims=1)])


def _norm(nodes: NodeWriter, editor: OnnxEditor, x: ir.Value, one: TabledNorm) -> ir.Value:
    axis = nodes.numbers([-1])
    if one.centred:
        x = nodes.one("Sub", [x, nodes.one("ReduceMean", [x, axis], keepdims=1)])
    mean = nodes.one("ReduceMean", [nodes.one("Mul", [x, x]), axis], keepdims=1)
    power = nodes.one("Add", [mean, nodes.real(one.epsilon)])
    exponent = nodes.one("Floor", [nodes.one("Div", [nodes.one("Log", [power]), nodes.real(math.log(4))])])
    four = nodes.one("Pow", [nodes.real(4), exponent])
    mantissa = nodes.one("Sub", [nodes.one("Div", [power, four]), nodes.real(1)])
    root = nodes.one("Pow", [nodes.real(2), nodes.one("Neg", [exponent])])
    found = nodes.one("Mul", [x, nodes.one("Mul", [_looked_up(nodes, mantissa, one.table), root])])
    for op, name in (("Mul", one.gain), ("Add", one.shift)):
        found = nodes.one(op, [found, editor.value(name)]) if name else found
    return found


def _factor(nodes: NodeWriter, x: ir.Value, by: ir.Value, one: TabledFactor) -> ir.Value:
    column = nodes.reshaped(nodes.cast(by, ir.DataType.FLOAT), -1, 1)
    reached = nodes.one("GreaterOrEqual", [column, nodes.array(one.bounds.astype(np.float32))], ir.DataType.BOOL)
    place = nodes.one("ReduceSum", [nodes.cast(reached, ir.DataType.INT64), nodes.numbers([1])], keepdims=0)
    numbers = nodes.array(one.numbers)
    found = nodes.reshaped(nodes.one("Gather", [numbers, place], numbers.dtype), -1, *[1] * (one.rank - 1))
    return nodes.one("Mul", [x, found], numbers.dtype)
