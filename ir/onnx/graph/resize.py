"""Other sizes for a part of an ONNX graph: constants, the sizes that ops say as attributes or constants, and shapes."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from qcc.ir.errors import Refused, first_line
from qcc.ir.graph.ops import Array, Resized
from qcc.ir.graph.resized import SizedOp
from qcc.ir.onnx.file.infer import infer
from qcc.ir.onnx.file.load import array_of
from qcc.ir.onnx.graph.edit import OnnxEditor

Shape = tuple[int | str | None, ...]

SpelledAs = Callable[[int, bool], bool]
"""A size of a target stays as it is spelled; told whether what it stands for is another now."""


def resize(model: ir.Model, ops: Sequence[SizedOp], resized: Resized) -> None:
    """Give constants, ops and values of a model other sizes, in place.

    Raises:
        Refused: an op cannot say it, or other sizes follow.
    """
    for one in ops:
        _Writer(model.graph, one).write(one.op.function)
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    for name, array in resized.constants.items():
        values[name].const_value, values[name].shape = ir.Tensor(array, name=name), ir.Shape(array.shape)
    for (op, position), array in resized.operands.items():
        editor = OnnxEditor(model.graph)
        editor.set_operand(op, position, array, editor.inputs(op)[position])
    _infer(model, {**_touched(model.graph, resized), **resized.shapes})


def _touched(graph: ir.Graph, resized: Resized) -> dict[str, Shape]:
    """The values made of what changes, with the shapes that they have."""
    changed, ops = {*resized.constants, *resized.shapes}, {*resized.attributes, *(op for op, _ in resized.operands)}
    found: dict[str, Shape] = {}
    for node in graph:
        reads = {value.name for value in node.inputs if value is not None}
        if node.name in ops or not changed.isdisjoint(reads):
            found.update((one.name or "", _shape(one)) for one in node.outputs if one.shape is not None)
    return found


def _infer(model: ir.Model, shapes: Mapping[str, Shape]) -> None:
    """See that the sizes follow; symbols stay."""
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    for name in shapes:
        if not values[name].is_graph_output():
            values[name].shape = None
    try:
        inferred = infer(model)
    except Exception as error:  # the library raises many classes
        raise Refused(f"its sizes do not fit: {first_line(error)}") from error
    found = ir.convenience.create_value_mapping(inferred.graph, include_subgraphs=False)
    for name, shape in shapes.items():
        other = _shape(found[name]) if name in found else None
        if other is None or len(other) != len(shape):
            raise Refused(f"`{name}` would be of unknown shape")
        for new, old in zip(other, shape, strict=True):
            if isinstance(old, int) and new != old:
                raise Refused(f"`{name}` would have {new} in the place of {old}")
        values[name].shape = ir.Shape(shape)


def _shape(value: ir.Value) -> Shape:
    return tuple(size if isinstance(size, int) else size.value for size in value.shape or ())


class _Writer:
    """Writes attributes of one node, in their canonical spelling, where its opset keeps them."""

    def __init__(self, graph: ir.Graph, one: SizedOp) -> None:
        self._graph = graph
        self._node = next(node for node in graph if node.name == one.op.name)
        self._asked, self._before = one.asked, one.op.attributes

    def write(self, function: str) -> None:
        """Write them as the node's function has them.

        Raises:
            Refused: it cannot be said.
        """
        if function == "reshape" and self._node.op_type == "Reshape":
            self._target(lambda size, changed: size == 0 or (size == -1 and not changed))
        elif function == "expand":
            self._target(lambda size, _: size in (1, -1))
        elif function == "split":
            self._set("split", 1, self._numbers("sizes"))
            self._node.attributes.pop("num_outputs", None)
        elif function == "slice":
            self._slice()
        elif "groups" in self._asked:
            name = "group" if function in ("conv", "conv_transpose") else "num_groups"
            self._node.attributes[name] = ir.AttrInt64(name, self._numbers("groups")[0])

    def _numbers(self, name: str, before: bool = False) -> tuple[int, ...]:
        found = (self._before if before else self._asked)[name]
        return tuple(map(int, found)) if isinstance(found, tuple) else (int(found),)

    def _set(self, name: str, position: int, numbers: Sequence[int]) -> None:
        """Write an attribute, or the constant that keeps it."""
        inputs = self._node.inputs
        if name in self._node.attributes or (len(inputs) <= position and self._version() < 13 and name == "split"):
            self._node.attributes[name] = ir.AttrInt64s(name, list(numbers))
            return
        old = inputs[position] if position < len(inputs) else None
        array = None if old is None else array_of(old) if old.const_value is not None else None
        if old is not None and array is None:
            raise Refused(f"`{self._node.name}` computes its {name}")
        dtype = np.int64 if array is None else array.dtype
        self._operand(position, np.asarray(numbers, dtype), f"{self._node.name}.{name}")

    def _version(self) -> int:
        return self._graph.opset_imports.get("", 1)

    def _operand(self, position: int, array: Array, name: str) -> None:
        OnnxEditor(self._graph).set_operand(self._node.name or "", position, array, name)

    def _slice(self) -> None:
        """Bounds of the axes that change; those of others stay as they are spelled."""
        for name, position in (("starts", 1), ("ends", 2)):
            self._set(name, position, self._numbers(name))

    def _target(self, kept: SpelledAs) -> None:
        """The sizes that a reshape names: one constant, or several joined with what is read off shapes."""
        value = self._node.inputs[1]
        sizes = list(zip(self._numbers("sizes"), self._numbers("sizes", before=True), strict=True))
        if value is None:
            return
        if value.const_value is not None:
            array = array_of(value)
            new = None if array is None else _mended(array, sizes[len(sizes) - array.size :], kept)
            if new is not None:
                self._operand(1, new, f"{self._node.name}.sizes")
            return
        producer = value.producer()
        if producer is not None and producer.op_type == "Concat":
            self._joined(producer, sizes, kept)

    def _joined(self, concat: ir.Node, sizes: Sequence[tuple[int, int]], kept: SpelledAs) -> None:
        """A concatenation of its own, since others may read the old one."""
        editor, parts, at, changed = OnnxEditor(self._graph), list[ir.Value | None](), 0, False
        for part in concat.inputs:
            array = None if part is None or part.const_value is None else array_of(part)
            new = None if array is None else _mended(array, sizes[at : at + array.size], kept)
            changed = changed or new is not None
            parts.append(part if new is None else editor.constant(f"{self._node.name}.size", new))
            at += _length(part)
        if changed:
            name = concat.outputs[0].name or ""
            new_target = editor.node("Concat", parts, name, concat, list(concat.attributes.values()))
            new_target.type, new_target.shape = concat.outputs[0].type, concat.outputs[0].shape
            self._node.replace_input_with(1, new_target)


def _length(part: ir.Value | None) -> int:
    """How many sizes a part of a target holds."""
    shape = None if part is None else part.shape
    size = shape[0] if shape is not None and len(shape) == 1 else None
    if not isinstance(size, int):
        raise Refused("a target is made of parts of unknown number")
    return size


def _mended(array: Array, sizes: Sequence[tuple[int, int]], kept: SpelledAs) -> Array | None:
    """A target's sizes as they are now, told with those before; None where they stay."""
    pairs = zip(array.reshape(-1).tolist(), sizes, strict=True)
    new = [old if kept(old, now != then) or now < 0 else now for old, (now, then) in pairs]
    return None if new == array.reshape(-1).tolist() else np.asarray(new, array.dtype).reshape(array.shape)
