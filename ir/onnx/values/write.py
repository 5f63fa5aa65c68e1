"""Values that are rounded as the model runs: how they are written, and what they were made of.

This is the one writer of an encoding of a value, whatever op reads it. Whole numbers are bytes without a sign, mostly
around 128: of those with one ONNX Runtime's products take four times as long on AVX2. A step of each token's own is
divided by before, and multiplied with behind, so that what lies between is rounded by the step 1 and is the same in
every encoding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.value import BYTE_BITS, DYNAMIC_INT8, EncodedValue, ValueEncoding
from qcc.ir.errors import Refused
from qcc.ir.onnx.file.load import array_of
from qcc.ir.onnx.graph.edit import OnnxEditor
from qcc.ir.onnx.values.own_steps import imitated, like, over_positions, over_tokens

LAST = np.iinfo(np.int64).max  # the end of an axis
VALUE_OPSET, WIDE_OPSET = 18, 21  # ReduceMax reads its axes; QuantizeLinear makes 16 bits
ONE = np.float32(1)
CODES = (np.uint8, np.int8, np.uint16, np.int16)
OPERANDS = 3  # of QuantizeLinear: what is rounded, the step, and the code of zero
MOVES = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Transpose", "Slice"))
"""Ops whose results are numbers of their first operand; they run on bytes as they do on floats."""


@dataclass(frozen=True)
class RoundedValue:
    """What a rounded value is made of: ``step * (codes - zero) * scale``.

    Args:
        source: what is rounded, or where that is not at hand, what gives the same codes.
        codes: its whole numbers.
        how: the step of all of it and the code of zero, as constants.
        scale: what the result is multiplied with, a number a token; None for nothing.
        first: the tokens before these, which are not rounded; None where all are.
    """

    source: ir.Value
    codes: ir.Value
    how: tuple[ir.Value, ir.Value]
    scale: ir.Value | None
    first: ir.Value | None = None

    @property
    def step(self) -> np.float32:
        """The step of all of it."""
        return np.float32(array_of(self.how[0]))


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
    found = _written(editor, value, encoded)
    mine = _makers(found)
    for node, position in asked:
        if node not in mine and node.graph is not None:  # what made its codes before may be gone
            node.replace_input_with(position, found)
    if readers is None:
        editor.take_name(value, found)
    for one in (value, found):
        editor.sweep(one)  # where nothing reads it any more
    return found


def _written(editor: OnnxEditor, value: ir.Value, encoded: EncodedValue) -> ir.Value:
    """The rounded value."""
    if encoded.encoding.float_tokens:
        return _behind_first(editor, value, encoded)
    if encoded.step is not None:
        return _stepped(editor, value, encoded)
    if encoded.encoding.imitates and not encoded.positions:
        return imitated(editor, value, encoded)
    return _per_token(editor, value, encoded)


def value_opset(encoding: ValueEncoding) -> int:
    """The lowest opset that has the ops that round so."""
    wide = encoding.when == "static" and encoding.code_bits > BYTE_BITS
    return WIDE_OPSET if wide else VALUE_OPSET


def _behind_first(editor: OnnxEditor, value: ir.Value, encoded: EncodedValue) -> ir.Value:
    """The first tokens as they are, or as it is known what they are, and behind them the others, rounded."""
    count = encoded.encoding.float_tokens
    rest = _tokens(editor, value, "rest", count, LAST)
    found = _written(editor, rest, replace(encoded, encoding=encoded.encoding.rest, leading=None))
    for node in found.consumers():
        if node.op_type == "Concat" and node.inputs[1] is found:
            return node.outputs[0]
    if encoded.leading is None:
        first = _tokens(editor, value, "first", 0, count)
    else:
        first = _for_each_sample(editor, value, encoded.leading.astype(np.float32))
    how = [ir.AttrInt64("axis", -2)]
    return like(editor.node("Concat", [first, found], f"{value.name}.rounded", found.producer(), how), value)


def _tokens(editor: OnnxEditor, value: ir.Value, name: str, begin: int, end: int) -> ir.Value:
    """Some of the tokens, cut out once for all that read them."""
    name = f"{value.name}.{name}.{begin or end}"
    for node, position in value.uses():
        if position == 0 and node.name == f"{name}/Slice":
            return node.outputs[0]
    given = (_shared(editor, number) for number in (begin, end, -2))
    found = like(editor.node("Slice", [value, *given], name, value.producer()), value)
    if value.shape is not None:
        size = end if begin == 0 else None
        found.shape = ir.Shape([*value.shape[:-2], size, value.shape[-1]])
    return found


def _shared(editor: OnnxEditor, number: int) -> ir.Value:
    """A number in a row, as a constant that all values share."""
    name = f"qcc.at.{number}".replace("-", "m")
    known = editor.known(name)
    return editor.constant(name, np.array([number], np.int64)) if known is None else known


def _for_each_sample(editor: OnnxEditor, value: ir.Value, tokens: np.ndarray) -> ir.Value:
    """Tokens that are known, as often as there are samples."""
    name = f"{value.name}.first"
    samples = editor.node("Shape", [value], f"{name}.samples", value.producer(), [ir.AttrInt64("end", -2)])
    own = editor.constant(f"{name}.own", np.array(tokens.shape, np.int64))
    axis = [ir.AttrInt64("axis", 0)]
    sizes = editor.node("Concat", [samples, own], f"{name}.sizes", samples.producer(), axis)
    given = [editor.constant(f"{name}.known", tokens), sizes]
    found = like(editor.node("Expand", given, name, sizes.producer()), value)
    if value.shape is not None:
        found.shape = ir.Shape([*value.shape[:-2], *tokens.shape])
    return found


def _stepped(editor: OnnxEditor, value: ir.Value, encoded: EncodedValue) -> ir.Value:
    """A value rounded by one step, which is done once; where numbers are only moved, that is done to the codes."""
    source = _clipped(editor, value, encoded)
    made, moved = _coded(source, encoded), _moved(editor, value, encoded) or _looked_up(editor, value, encoded)
    if made is not None and moved is not None and made is not moved:
        made.replace_all_uses_with(moved)
        editor.sweep(made)
    codes = moved or made
    if codes is None:
        source = source if source is not value else _clipped(editor, value, encoded, write=True)
        return _rounded(editor, value, source, np.float32(encoded.step or 0), _zero(encoded), _within(encoded))
    known = (node.outputs[0] for node in codes.consumers() if _how(node) == _wanted(encoded))
    return next(known, None) or _decoded(editor, value, codes, encoded)


def _clipped(editor: OnnxEditor, value: ir.Value, encoded: EncodedValue, write: bool = False) -> ir.Value:
    """The value within the ends of its codes of 9 to 15 bits; itself where none is cut off, or it is not written."""
    if encoded.encoding.width == encoded.encoding.code_bits or encoded.encoding.in_bytes:
        return value
    ends = [np.float32(end) * np.float32(encoded.step or 0) for end in encoded.ends]
    for node, position in value.uses():
        if position == 0 and node.op_type == "Clip" and [array_of(one) for one in node.inputs[1:] if one] == ends:
            return node.outputs[0]
    if not write:
        return value
    name = f"{value.name}.clipped"
    given = [editor.constant(f"{name}.end", np.array(end, np.float32)) for end in ends]
    return like(editor.node("Clip", [value, *given], name, value.producer()), value)


def _within(encoded: EncodedValue) -> tuple[np.ndarray, ...]:
    """The first and the last code, where they do not fill a byte; an op of integers is found in front of the cut."""
    encoding = encoded.encoding
    if encoding.when == "dynamic" or encoding.imitates or encoding.width == encoding.code_bits:
        return ()
    zero = _zero(encoded)
    return tuple((zero.astype(np.int64) + end).astype(zero.dtype) for end in encoded.ends)


def _coded(value: ir.Value, encoded: EncodedValue) -> ir.Value | None:
    """The codes of a value that is rounded in this way already."""
    for node, at in value.uses():
        if at == 0 and _how(node, coder=True) == _wanted(encoded):
            codes = node.outputs[0]
            inside = (other.outputs[0] for other in codes.consumers() if other.op_type == "Clip")
            return next(inside, None) if _within(encoded) else codes
    return None


def _coder(codes: ir.Value | None) -> ir.Node | None:
    """The op that makes codes, before they are cut off."""
    made = None if codes is None else codes.producer()
    cut = made is not None and made.op_type == "Clip" and made.inputs[0] is not None
    return made.inputs[0].producer() if made is not None and cut and made.inputs[0] is not None else made


def _how(node: ir.Node, coder: bool = False) -> tuple[float, int, np.dtype[Any]] | None:
    """The step and the code of zero of an op that makes codes, or reads them; None of another."""
    if node.op_type != ("QuantizeLinear" if coder else "DequantizeLinear") or len(node.inputs) != OPERANDS:
        return None
    step, zero = (None if one is None else array_of(one) for one in node.inputs[1:])
    if step is None or zero is None or (step.shape, zero.shape) != ((), ()) or zero.dtype not in CODES:
        return None
    return float(step), int(zero), zero.dtype


def _wanted(encoded: EncodedValue) -> tuple[float, int, np.dtype[Any]]:
    zero = _zero(encoded)
    return float(encoded.step or 0), int(zero), zero.dtype


def _zero(encoded: EncodedValue) -> np.ndarray:
    """The code of zero."""
    wide = encoded.encoding.code_bits > BYTE_BITS
    if encoded.encoding.signed:
        return np.array(encoded.zero - encoded.encoding.grid.middle, np.int16 if wide else np.int8)
    return np.array(encoded.zero, np.uint16 if wide else np.uint8)


def _moved(editor: OnnxEditor, value: ir.Value, encoded: EncodedValue) -> ir.Value | None:
    """The codes of a value that holds another's numbers, which are rounded in this way; None of others."""
    move = value.producer()
    if move is None or not _only_moves(move):
        return None
    source = move.inputs[0]
    decoder = None if source is None else source.producer()
    if decoder is None or _how(decoder) != _wanted(encoded):
        return None
    codes, others = decoder.inputs[0], list(move.inputs[1:])
    assert codes is not None
    for node, position in codes.uses():
        if position == 0 and node.op_type == move.op_type and node.outputs[0].name == f"{value.name}.codes":
            return node.outputs[0]
    if move.op_type == "Pad":
        others = [*others, None][: len(("pads", "value"))]
        others[1] = editor.constant(f"{value.name}.zero", _zero(encoded))
    given = [codes, *others, *move.inputs[len(others) + 1 :]]
    found = editor.node(move.op_type, given, f"{value.name}.codes", move, list(move.attributes.values()))
    found.dtype, found.shape = ir.DataType.from_numpy(_zero(encoded).dtype), value.shape
    return found


def _looked_up(editor: OnnxEditor, value: ir.Value, encoded: EncodedValue) -> ir.Value | None:
    """The codes of numbers that are looked up in a table: the table is rounded in their place; None of others."""
    node = value.producer()
    table = None if node is None or node.op_type != "Gather" or node.inputs[0] is None else array_of(node.inputs[0])
    if node is None or table is None or table.ndim != 1 or table.dtype != np.float32:
        return None
    name, codes, zero = f"{value.name}.codes", node.inputs[1], _zero(encoded)
    assert codes is not None
    for reader, position in codes.uses():
        if position == 1 and reader.outputs[0].name == name:
            return reader.outputs[0]
    numbers = np.clip(np.rint(table / np.float32(encoded.step or 0)), *encoded.ends) + zero.astype(np.float32)
    given = [editor.constant(f"{value.name}.table", numbers.astype(zero.dtype)), codes]
    found = editor.node("Gather", given, name, node)
    found.dtype, found.shape = ir.DataType.from_numpy(zero.dtype), value.shape
    return found


def _only_moves(node: ir.Node) -> bool:
    """The op gives numbers of its first operand another place, or leaves some out; and puts zeros beside them."""
    if node.op_type == "Pad":
        value = array_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1)
        return value is not None and not value.any()
    return node.op_type in MOVES


def _makers(value: ir.Value) -> tuple[ir.Node, ...]:
    """The ops that made a rounded value of what is rounded, which still read that."""
    decoder = value.producer()
    codes = None if decoder is None else decoder.inputs[0]
    maker = _coder(codes)
    if maker is None or maker.op_type != "QuantizeLinear":
        return ()
    source = maker.inputs[0]
    before = None if source is None else source.producer()
    return (maker, before) if before is not None and before.op_type == "Clip" else (maker,)


def multiply_rounded(editor: OnnxEditor, product: ir.Value) -> None:
    """Let a product of two values be one of integers: ``a @ b  -->  ((a / s) @ (b / t)) * s * t``, both rounded.

    The steps ``s`` are those of the rows of ``a``, ``t`` those of the columns of ``b``. The result keeps its name.
    """
    node, encoded = product.producer(), EncodedValue(DYNAMIC_INT8)
    assert node is not None
    found, uses = product, product.uses()
    for position, along in enumerate((-1, -2)):
        value = node.inputs[position]
        assert value is not None
        steps, over = over_tokens(editor, value, encoded, along)
        coded = next((one.outputs[0] for one, _ in over.uses() if one.op_type == "QuantizeLinear"), None)
        read = next((one.outputs[0] for one in coded.consumers()), None) if coded is not None else None
        node.replace_input_with(position, read or _rounded(editor, over, over, ONE, _zero(encoded)))
        name = f"{product.name}.by.{'columns' if position else 'rows'}"
        found = like(editor.node("Mul", [found, steps], name, found.producer()), product)
    for reader, at in uses:
        reader.replace_input_with(at, found)
    editor.take_name(product, found)


def read_rounded(value: ir.Value) -> RoundedValue:
    """What a value is made of that `write_rounded` made."""
    made = value.producer()
    assert made is not None
    if made.op_type == "Concat":
        first, rest = made.inputs
        assert rest is not None
        return replace(read_rounded(rest), first=first)
    decoded, scale = (made.inputs[0], made.inputs[1]) if made.op_type == "Mul" else (value, None)
    assert decoded is not None
    decoder = decoded.producer()
    assert decoder is not None
    codes, step, zero = decoder.inputs
    assert codes is not None and step is not None and zero is not None
    coder = _coder(codes)
    source = coder.inputs[0] if coder is not None and coder.op_type == "QuantizeLinear" else decoded
    assert source is not None
    return RoundedValue(source, codes, (step, zero), scale)


def _rounded(
    editor: OnnxEditor,
    value: ir.Value,
    source: ir.Value,
    step: np.float32,
    zero: np.ndarray,
    within: Sequence[np.ndarray] = (),
) -> ir.Value:
    """Rounded by one step, and decoded again; the constants are this value's own, so that they go with it."""
    name = f"{value.name}.rounded"
    given = [editor.constant(f"{name}.step", np.array(step, np.float32))]
    given.append(editor.constant(f"{name}.middle", zero))
    codes = editor.node("QuantizeLinear", [source, *given], f"{name}.codes", source.producer())
    codes.dtype, codes.shape = ir.DataType.from_numpy(zero.dtype), value.shape
    if within:
        ends = [editor.constant(f"{name}.end", end) for end in within]
        cut = editor.node("Clip", [codes, *ends], f"{name}.within", codes.producer())
        cut.type, cut.shape, codes = codes.type, codes.shape, cut
    return like(editor.node("DequantizeLinear", [codes, *given], name, codes.producer()), value)


def _decoded(editor: OnnxEditor, value: ir.Value, codes: ir.Value, encoded: EncodedValue) -> ir.Value:
    """What codes stand for that are there."""
    name = f"{value.name}.rounded"
    given = [editor.constant(f"{name}.step", np.array(encoded.step, np.float32))]
    given.append(editor.constant(f"{name}.middle", _zero(encoded)))
    return like(editor.node("DequantizeLinear", [codes, *given], name, codes.producer()), value)


def _per_token(editor: OnnxEditor, value: ir.Value, encoded: EncodedValue) -> ir.Value:
    """A value rounded by a step a token."""
    scale, source = (over_positions if encoded.positions else over_tokens)(editor, value, encoded)
    found = _rounded(editor, value, source, ONE, _zero(encoded), _within(encoded))
    return like(editor.node("Mul", [found, scale], f"{value.name}.rounded.scaled", found.producer()), value)
