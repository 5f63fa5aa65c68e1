"""Steps that tokens and blocks have of their own, as ops of an ONNX graph: computed as it runs, or held by it."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.blocks import TENSOR
from qcc.ir.encoding.value import COLUMN, POWERS, SLACK, SMALLEST_STEP, EncodedValue
from qcc.ir.onnx.graph.edit import OnnxEditor

PLACES = "qcc.places."  # and the size of an input that has as many


def imitated(editor: OnnxEditor, value: ir.Value, encoded: EncodedValue) -> ir.Value:
    """A value rounded in floats, by steps of its blocks; once for all that read it so."""
    encoding, name = encoded.encoding, f"{value.name}.{encoded.encoding.text.replace(' ', '.')}"
    known = editor.known(name)
    if known is not None:
        return known
    assert value.shape is not None
    rank, lead, last = len(value.shape), [0] * (len(value.shape) - 1), value.producer()

    def op(op_type: str, *given: ir.Value | np.ndarray, **attributes: int) -> ir.Value:
        nonlocal last
        read = [editor.constant(f"{name}.{op_type}", one) if isinstance(one, np.ndarray) else one for one in given]
        how = [ir.AttrInt64(key, number) for key, number in attributes.items()]
        found = editor.node(op_type, read, f"{name}.{op_type.lower()}", last, how)
        found.type, last = value.type, found.producer()
        return found

    def number(of: float) -> np.ndarray:
        return np.array(of, np.float32)

    parted = value
    if encoding.group:
        parted = op("Reshape", value, np.array([*lead, -1, encoding.group], np.int64))
    axes = {TENSOR: range(rank), COLUMN: range(rank - 1)}.get(encoding.stored.block, (-1,))
    highest = float(encoding.grid.highest)
    step = op("ReduceMax", op("Abs", parted), np.array([*axes], np.int64), keepdims=1)
    step = op("Div", op("Max", step, number(SMALLEST_STEP * highest)), number(highest))
    if encoding.stored.scale == POWERS:
        power = op("Div", op("Log", step), number(np.log(2)))
        step = op("Pow", number(2), op("Ceil", op("Sub", power, number(SLACK))))
    low, high = (number(end) for end in encoded.ends)
    found = op("Mul", op("Clip", op("Round", op("Div", parted, step)), low, high), step)
    if encoding.group:
        found = op("Reshape", found, np.array([*lead, -1], np.int64))
    editor.rename(found, name)
    return like(found, value)


def over_tokens(
    editor: OnnxEditor, value: ir.Value, encoded: EncodedValue, along: int = -1
) -> tuple[ir.Value, ir.Value]:
    """The steps of the tokens, and the value over them; written once for all that read it so.

    A token's numbers lie ``along`` the last axis, or those that share a step along the one before it.
    """
    name = f"{value.name}.qcc.over" if along == -1 else f"{value.name}.qcc.over.columns"
    for node, position in value.uses():
        if position == 0 and node.name == f"{name}/Div" and node.inputs[1] is not None:
            return node.inputs[1], node.outputs[0]
    highest = float(encoded.encoding.grid.highest)
    axis = editor.constant(f"{name}.axis", np.array([along], np.int64))
    least = editor.constant(f"{name}.least", np.array(SMALLEST_STEP * highest, np.float32))
    levels = editor.constant(f"{name}.levels", np.array(highest, np.float32))
    found = like(editor.node("Abs", [value], f"{name}.sizes", value.producer()), value)
    for op_type, other in (("ReduceMax", axis), ("Max", least), ("Div", levels)):
        found = editor.node(op_type, [found, other], f"{name}.{op_type.lower()}", found.producer())
        found.type = value.type
        found.shape = None
        if value.shape is not None:
            sizes = [*value.shape]
            sizes[along] = 1
            found.shape = ir.Shape(sizes)
    return found, like(editor.node("Div", [value, found], name, found.producer()), value)


def over_positions(editor: OnnxEditor, value: ir.Value, encoded: EncodedValue) -> tuple[ir.Value, ir.Value]:
    """The steps of the tokens by their places, and the value over them; written once for all that read it so."""
    name = f"{value.name}.qcc.by{encoded.encoding.width}"
    for node, position in value.uses():
        if position == 0 and node.name == f"{name}/Div" and node.inputs[1] is not None:
            return node.inputs[1], node.outputs[0]
    held = editor.constant(f"{name}.steps", np.array(encoded.positions, np.float32)[:, None])
    found, places = held, _places(editor, value, len(encoded.positions))
    if places is not None:
        last = value.producer() if _shared_places(places) and value.producer() else places.producer()
        found = editor.node("Gather", [held, places], f"{name}.gathered", last, [ir.AttrInt64("axis", 0)])
        found.dtype = ir.DataType.FLOAT
    return found, like(editor.node("Div", [value, found], name, found.producer() or value.producer()), value)


def _shared_places(places: ir.Value) -> bool:
    """They are made of an input, before all else."""
    return (places.name or "").startswith(PLACES)


def _places(editor: OnnxEditor, value: ir.Value, count: int) -> ir.Value | None:
    """The places of tokens, those behind the last of so many that one's; None where there are just so many.

    Values whose tokens are as many as an input of the model has of something share them.
    """
    assert value.shape is not None
    size = value.shape[-2]
    if size == count:
        return None
    source, axis, name = value, len(value.shape) - 2, f"{value.name}.qcc.places"
    for one in editor.fed:
        sizes = [] if one.shape is None else [*one.shape]
        if isinstance(size, ir.SymbolicDim) and size.value is not None and size in sizes:
            source, axis, name = one, sizes.index(size), f"{PLACES}{size.value}.{count}"
            break
    known = editor.known(name)
    if known is not None:
        return known
    last = source.producer()

    def op(op_type: str, given: Sequence[ir.Value], **attributes: int) -> ir.Value:
        nonlocal last
        how = [ir.AttrInt64(key, number) for key, number in attributes.items()]
        made = editor.node(op_type, [*given], f"{name}.{op_type.lower()}", last, how)
        made.dtype, last = ir.DataType.INT64, made.producer()
        return made

    def number(word: str, of: int | list[int]) -> ir.Value:
        return editor.constant(f"{name}.{word}", np.array(of, np.int64))

    tokens = op("Squeeze", [op("Shape", [source], start=axis, end=axis + 1), number("axis", [0])])
    row = op("Range", [number("begin", 0), tokens, number("delta", 1)])
    found = op("Min", [row, number("last", count - 1)])
    editor.rename(found, name)
    return found


def like(value: ir.Value, other: ir.Value) -> ir.Value:
    """The first, with the type and shape of the other."""
    value.type, value.shape = other.type, other.shape
    return value
