"""Values that are rounded as the model runs: how they are written, and what they were made of.

Whole numbers are bytes without a sign, around 128: of those with one ONNX Runtime's products take four times as long
on AVX2. A step of each token's own is divided by before, and multiplied with behind, so that what lies between is
rounded by the step 1 and is the same in every encoding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.value import SMALLEST_STEP, EncodedValue
from qcc.ir.onnx.file.load import array_of
from qcc.ir.onnx.graph.edit import OnnxEditor

VALUE_OPSET = 18  # ReduceMax reads its axes
ONE = np.float32(1)


@dataclass(frozen=True)
class RoundedValue:
    """What a rounded value is made of: ``step * rint(source / step) * scale``.

    Args:
        source: what is rounded.
        step: of all of it.
        scale: what the result is multiplied with, a number a token; None for nothing.
    """

    source: ir.Value
    step: np.float32
    scale: ir.Value | None


def write_rounded(editor: OnnxEditor, name: str, encoded: EncodedValue, readers: Sequence[tuple[str, int]]) -> ir.Value:
    """Let readers of a value read it rounded; that value.

    Raises:
        Refused: a reader does not read the value.
    """
    value = editor.value(name)
    uses = [editor.use(value, op, position) for op, position in readers]
    scale, source = (None, value) if encoded.step is not None else _per_token(editor, value, encoded)
    found = _stepped(editor, value, source, encoded.step or ONE)
    if scale is not None:
        found = _like(editor.node("Mul", [found, scale], f"{name}.rounded.scaled", found.producer()), value)
    for node, position in uses:
        node.replace_input_with(position, found)
    return found


def read_rounded(value: ir.Value) -> RoundedValue:
    """What a value is made of that `write_rounded` made."""
    made = value.producer()
    assert made is not None
    decoded, scale = (made.inputs[0], made.inputs[1]) if made.op_type == "Mul" else (value, None)
    assert decoded is not None
    decoder = decoded.producer()
    assert decoder is not None and decoder.inputs[0] is not None and decoder.inputs[1] is not None
    coder, step = decoder.inputs[0].producer(), array_of(decoder.inputs[1])
    assert coder is not None and coder.inputs[0] is not None and step is not None
    return RoundedValue(coder.inputs[0], np.float32(step), scale)


def _stepped(editor: OnnxEditor, value: ir.Value, source: ir.Value, step: np.float32) -> ir.Value:
    """Rounded by one step, and decoded again; the constants are this value's own, so that they go with it."""
    name = f"{value.name}.rounded"
    given = [editor.constant(f"{name}.step", np.array(step, np.float32))]
    given.append(editor.constant(f"{name}.middle", np.array(128, np.uint8)))
    codes = editor.node("QuantizeLinear", [source, *given], f"{name}.codes", source.producer())
    codes.dtype, codes.shape = ir.DataType.UINT8, value.shape
    return _like(editor.node("DequantizeLinear", [codes, *given], name, codes.producer()), value)


def _per_token(editor: OnnxEditor, value: ir.Value, encoded: EncodedValue) -> tuple[ir.Value, ir.Value]:
    """The steps of the tokens, and the value over them; written once for all that read it so."""
    name = f"{value.name}.qcc.over"
    for node, position in value.uses():
        if position == 0 and node.name == f"{name}/Div" and node.inputs[1] is not None:
            return node.inputs[1], node.outputs[0]
    highest = float(encoded.encoding.grid.highest)
    axis = editor.constant(f"{name}.axis", np.array([-1], np.int64))
    least = editor.constant(f"{name}.least", np.array(SMALLEST_STEP * highest, np.float32))
    levels = editor.constant(f"{name}.levels", np.array(highest, np.float32))
    found = _like(editor.node("Abs", [value], f"{name}.sizes", value.producer()), value)
    for op_type, other in (("ReduceMax", axis), ("Max", least), ("Div", levels)):
        found = editor.node(op_type, [found, other], f"{name}.{op_type.lower()}", found.producer())
        found.type = value.type
        found.shape = None if value.shape is None else ir.Shape((*value.shape[:-1], 1))
    return found, _like(editor.node("Div", [value, found], name, found.producer()), value)


def _like(value: ir.Value, other: ir.Value) -> ir.Value:
    value.type, value.shape = other.type, other.shape
    return value
