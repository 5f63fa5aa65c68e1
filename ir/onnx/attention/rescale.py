"""A scale that hangs on how many rows there are."""

import math

import numpy as np
import onnx_ir as ir

from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, ScaledByRows
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.attention.nodes import INT64, NodeWriter
from qcc.ir.onnx.graph.edit import OnnxEditor


def check_scalable(_: Graph, one: Attention) -> None:
    """See that an attention can be scaled by how many rows its keys have.

    Raises:
        Refused: it cannot.
    """
    if one.keys.row_axis is None or not one.reads:
        raise Refused("how its keys hold rows is not known")
    if one.keys.past:
        raise Refused("rows of earlier runs come first")


def rescale(model: ir.Model, one: Attention, how: ScaledByRows) -> None:
    """Multiply what an op reads by ``sqrt(log n / log usual)``, ``n`` the length of a value's axis.

    Where the length is written down it is one constant. Else it is computed in float64, where the logarithm of one
    number is the same whoever computes it to the last digits of float32: the quotient of two equal ones is one.
    """
    editor, (op, position) = OnnxEditor(model.graph), one.reads[how.which]
    value, axis = one.keys.value, one.keys.row_axis
    assert axis is not None
    usual, read = how.usual, editor.value(editor.inputs(op)[position])
    node, at = editor.use(read, op, position)
    rows, nodes = editor.value(value), NodeWriter(editor, node, f"{op}.rows")
    length = None if rows.shape is None else rows.shape[axis]
    if isinstance(length, int):
        number = np.sqrt(np.log(np.float64(length)) / math.log(usual))
        factor = editor.constant(f"{op}.rows.factor", np.asarray(number, read.dtype.numpy() if read.dtype else None))
    else:
        double = ir.DataType.DOUBLE
        count = nodes.one("Gather", [nodes.one("Shape", [rows], INT64), nodes.whole(axis)])
        share = nodes.one("Log", [nodes.one("Cast", [count], double, to=int(double))])
        share = nodes.one("Div", [share, editor.constant(f"{op}.rows.usual", np.asarray(math.log(usual)))])
        root, dtype = nodes.one("Sqrt", [share]), read.dtype or ir.DataType.FLOAT
        factor = nodes.one("Cast", [root], dtype, to=int(dtype))
    scaled = nodes.one("Mul", [read, factor])
    scaled.shape = read.shape
    node.replace_input_with(at, scaled)
