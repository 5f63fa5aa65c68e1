"""Values that are rounded as the model runs: how they are written, and what they were made of.

This is the one writer of an encoding of a value, whatever op reads it. Whole numbers are bytes without a sign, mostly
around 128: of those with one ONNX Runtime's products take four times as long on AVX2. A step of each token's own is
divided by before, and multiplied with behind, so that what lies between is rounded by the step 1 and is the same in
every encoding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.value import SMALLEST_STEP, EncodedValue
from qcc.ir.errors import Refused
from qcc.ir.onnx.file.load import array_of
from qcc.ir.onnx.graph.edit import OnnxEditor

VALUE_OPSET = 18  # ReduceMax reads its axes
ONE = np.float32(1)
OPERANDS = 3  # of QuantizeLinear: what is rounded, the step, and the code of zero


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


def write_rounded(
    editor: OnnxEditor, name: str, encoded: EncodedValue, readers: Sequence[tuple[str, int]] | None
) -> ir.Value:
    """Let readers of a value read it rounded, or all, so that it takes the name over; that value.

    Raises:
        Refused: a reader does not read the value, or it cannot leave its name to another.
    """
    value = editor.value(name)
    if readers is None and value.producer() is None:
        raise Refused(f"`{name}` is fed or stored: not all can read it rounded")
    asked = value.uses() if readers is None else [editor.use(value, op, position) for op, position in readers]
    found = None if encoded.step is None else _known(value, encoded)
    mine = () if found is None else (_coder(found),)
    found = found or _written(editor, value, encoded)
    for node, position in asked:
        if node not in mine:
            node.replace_input_with(position, found)
    if readers is None:
        editor.take_name(value, found)
    return found


def _written(editor: OnnxEditor, value: ir.Value, encoded: EncodedValue) -> ir.Value:
    """The value, rounded, which nothing reads yet."""
    if encoded.step is not None:
        return _stepped(editor, value, value, encoded.step, encoded.zero)
    scale, source = _per_token(editor, value, encoded)
    found = _stepped(editor, value, source, ONE, encoded.zero)
    return _like(editor.node("Mul", [found, scale], f"{value.name}.rounded.scaled", found.producer()), value)


def _known(value: ir.Value, encoded: EncodedValue) -> ir.Value | None:
    """The value as it is read rounded in this way already."""
    for node, position in value.uses():
        if node.op_type != "QuantizeLinear" or position != 0 or len(node.inputs) != OPERANDS:
            continue
        step, zero = (None if one is None else array_of(one) for one in node.inputs[1:])
        if step is None or zero is None or (step.shape, zero.shape) != ((), ()):
            continue
        if zero.dtype == np.uint8 and (float(step), int(zero)) == (float(encoded.step or 0), encoded.zero):
            return next((one.outputs[0] for one in node.outputs[0].consumers()), None)
    return None


def _coder(value: ir.Value) -> ir.Node | None:
    """The op that makes the whole numbers of a value that `_stepped` made."""
    decoder = value.producer()
    codes = None if decoder is None else decoder.inputs[0]
    return None if codes is None else codes.producer()


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


def _stepped(editor: OnnxEditor, value: ir.Value, source: ir.Value, step: np.float32, zero: int) -> ir.Value:
    """Rounded by one step, and decoded again; the constants are this value's own, so that they go with it."""
    name = f"{value.name}.rounded"
    given = [editor.constant(f"{name}.step", np.array(step, np.float32))]
    given.append(editor.constant(f"{name}.middle", np.array(zero, np.uint8)))
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
