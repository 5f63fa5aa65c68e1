"""Graphs that give what later runs need, and graphs that take it instead of computing it."""

from collections.abc import MutableSequence, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import needed
from qcc.ir.model.carried import Carried, Corrections
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.infer import InferTypes
from qcc.ir.onnx.graph.edit import OnnxEditor


def giving(graph: OnnxGraph, carried: Sequence[Carried]) -> OnnxGraph:
    """The graph that also returns what later runs take.

    Rewrite:
        v = f(s)  -->  v = f(s), name = v - s

    Raises:
        Refused: there is no such value.
    """
    found = _copy(graph)
    editor = OnnxEditor(found.model.graph)
    for one in carried:
        value = _value(editor, one.value)
        if one.source:
            reads = [value, _value(editor, one.source)]
            value = editor.node("Sub", reads, one.name, value.producer())
        else:
            value = editor.node("Identity", [value], one.name, value.producer())
        _typed(value, _value(editor, one.value))
        found.model.graph.outputs.append(value)
    return found


def taking(graph: OnnxGraph, carried: Carried, corrections: Corrections | None) -> OnnxGraph:
    """The graph in which a value is what was carried, corrected; what only it needed is gone.

    Rewrite:
        v = f(s)  -->  v = s + scale[row] * name + offset[row]

    Raises:
        Refused: there is no such value.
    """
    found = _copy(graph)
    main = found.model.graph
    editor = OnnxEditor(main)
    old = _value(editor, carried.value)
    fed = ir.Value(name=carried.name)
    _typed(fed, old)
    main.inputs.append(fed)
    new, last = fed, _front(editor, carried)
    if corrections is not None:
        new = _corrected(editor, main.inputs, fed, old, corrections, last)
        last = new.producer()
    if carried.source:
        source = _value(editor, carried.source)
        new = editor.node("Add", [source, new], f"{carried.value}.carried", _later(main, source.producer(), last))
        _typed(new, old)
    for reader, position in list(old.uses()):
        if reader is not new.producer():
            reader.replace_input_with(position, new)
    common.RemoveUnusedNodesPass()(found.model)
    reached = needed(found, [one.name for one in found.outputs])
    for value in [one for one in main.inputs if one.name not in reached and not one.is_initializer()]:
        main.inputs.remove(value)
    return OnnxGraph(found.model, found.folder, tuple(found.data_files()), found.note_bytes)


def _copy(graph: OnnxGraph) -> OnnxGraph:
    """A graph to be edited, of which nothing has been looked up, and whose values tell their types."""
    model = graph.model.clone()
    InferTypes()(model)
    return OnnxGraph(model, graph.folder, tuple(graph.data_files()), graph.note_bytes)


def _value(editor: OnnxEditor, name: str) -> ir.Value:
    try:
        return editor.value(name)
    except KeyError as error:
        raise Refused(f"there is no value `{name}` in what was written: it lies within what became one op") from error


def _typed(value: ir.Value, like: ir.Value) -> None:
    """Give a value the type of another; what nothing tells of, behind an op of a library, is of float32."""
    value.type, value.shape = like.type or ir.TensorType(ir.DataType.FLOAT), like.shape


def _front(editor: OnnxEditor, carried: Carried) -> ir.Node | None:
    """Behind which new nodes stand: what makes the source, or nothing."""
    return _value(editor, carried.source).producer() if carried.source else None


def _later(graph: ir.Graph, one: ir.Node | None, other: ir.Node | None) -> ir.Node | None:
    """The one of two nodes that comes later."""
    if one is None or other is None:
        return one or other
    order = {node: at for at, node in enumerate(graph)}
    return max(one, other, key=order.__getitem__)


def _corrected(
    editor: OnnxEditor,
    inputs: MutableSequence[ir.Value],
    fed: ir.Value,
    like: ir.Value,
    corrections: Corrections,
    after: ir.Node | None,
) -> ir.Value:
    """What was carried, by the row of its corrections that is asked for."""
    dtype = np.float32 if like.dtype is None else like.dtype.numpy()
    row = ir.Value(name=corrections.row, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(()))
    inputs.append(row)
    value, last = fed, after
    for op_type, table in (("Mul", corrections.scale), ("Add", corrections.offset)):
        stored = editor.constant(f"{fed.name}.{op_type.lower()}", table.astype(dtype))
        picked = editor.node("Gather", [stored, row], f"{fed.name}.{op_type.lower()}.row", last)
        value = editor.node(op_type, [value, picked], f"{fed.name}.{op_type.lower()}.of_row", picked.producer())
        _typed(value, like)
        last = value.producer()
    return value
