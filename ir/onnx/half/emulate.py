"""A model that rounds wherever one in half precision would, for runtimes that compute in float32 instead.

ONNX Runtime has few ops of half precision for CPUs. It casts what those read and make to float32, and leaves out the
casts between two such ops, so that what a run shows is mostly float32 arithmetic.
"""

import onnx_ir as ir

from qcc.ir.onnx.file.bodies import inside
from qcc.ir.onnx.file.infer import InferTypes
from qcc.ir.onnx.graph.edit import OnnxEditor
from qcc.ir.onnx.half.cast import SHAPES

HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
FLOAT = ir.DataType.FLOAT


def emulate(model: ir.Model) -> int:
    """Let every op of half precision read and make float32, rounded to its type in between; how many there are."""
    InferTypes()(model)
    editor, widened, count = OnnxEditor(model.graph), dict[ir.Value, ir.Value](), 0
    for node in list(model.graph):
        if node.domain or node.op_type in SHAPES or node.op_type == "Cast" or any(True for _ in inside(node)):
            continue
        made = [value for value in node.outputs if _half(value)]
        for at, value in enumerate(node.inputs):
            if value is not None and _half(value):
                if value not in widened:
                    widened[value] = _cast(editor, value, FLOAT)
                node.replace_input_with(at, widened[value])
        count += bool(made)
        for value in made:
            _round(editor, value)
    return count


def _half(value: ir.Value) -> bool:
    if value.const_value is not None:
        return value.const_value.dtype in HALVES
    return isinstance(value.type, ir.TensorType) and value.type.dtype in HALVES


def _round(editor: OnnxEditor, value: ir.Value) -> None:
    """Let an op make float32, and all that reads it read it rounded."""
    assert value.type is not None
    dtype, uses = value.type.dtype, list(value.uses())
    value.type = ir.TensorType(FLOAT)
    rounded = _cast(editor, value, dtype)
    for node, at in uses:
        node.replace_input_with(at, rounded)
    if value.is_graph_output():
        editor.take_name(value, rounded)


def _cast(editor: OnnxEditor, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    name = f"{value.name}.as.{dtype.name.lower()}"
    found = editor.node("Cast", [value], name, value.producer(), [ir.AttrInt64("to", dtype.value)])
    found.type, found.shape = ir.TensorType(dtype), value.shape
    return found
