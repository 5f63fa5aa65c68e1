"""Structural edits of an ONNX graph: an operand of an op's own, an op put in, an op left out."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from qcc.ir.errors import Refused
from qcc.ir.graph.edits import fresh, result_shape
from qcc.ir.graph.graph import Readers
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.file.bodies import inside

NodeUse = tuple[ir.Node, int]
_OPS = {"mul": "Mul", "add": "Add", "gather": "Gather", "linear": "MatMul"}


class OnnxEditor:
    """Edits the main graph; subgraphs follow where they read its values. What is refused has changed nothing."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph}
        self._values = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
        inner = ir.convenience.create_value_mapping(graph, include_subgraphs=True)
        self._taken = {*inner, *(node.name or "" for node in graph.all_nodes())}
        for part in graph.subgraphs():
            self._taken.update(part.initializers, (value.name or "" for value in part.inputs))

    def value(self, name: str) -> ir.Value:
        """A value of the main graph."""
        return self._values[name]

    @property
    def fed(self) -> tuple[ir.Value, ...]:
        """The inputs of the graph that no constant stands for."""
        return tuple(one for one in self._graph.inputs if not one.is_initializer())

    def known(self, name: str) -> ir.Value | None:
        """A value of the main graph, if there is one of this name."""
        return self._values.get(name)

    def inputs(self, op: str) -> tuple[str, ...]:
        """What an op reads; empty for an operand left out."""
        return tuple("" if value is None else value.name or "" for value in self._nodes[op].inputs)

    def set_operand(self, op: str, position: int, array: Array, name: str) -> str:
        """Give an op a constant of its own, named so if that is free.

        Raises:
            Refused: the op has no such operand.
        """
        node = self._nodes[op]
        if position not in range(len(node.inputs)) and not self._may_have(node, position):
            raise Refused(f"`{op}` ({node.op_type}) takes no operand {position}")
        node.resize_inputs(max(len(node.inputs), position + 1))
        old = node.inputs[position]
        node.replace_input_with(position, None)
        self.drop(old)
        constant = self.constant(name, array)
        node.replace_input_with(position, constant)
        return constant.name or ""

    def insert(self, function: str, value: str, array: Array, readers: Readers, name: str) -> str:
        """Put an op behind a value; the name of what it makes.

        Raises:
            Refused: a reader does not read the value, or the value cannot leave its name to another.
        """
        old = self._values[value]
        if not isinstance(old.type, ir.TensorType | None):
            raise Refused(f"`{value}` is not a tensor")
        if readers is None and old.is_graph_output() and old.producer() is None:
            raise Refused(f"`{value}` is returned as it is fed or stored: nothing can be put between")
        uses = old.uses() if readers is None else [self.use(old, op, position) for op, position in readers]
        constant = self.constant(f"{name}.weight" if name else f"{value}.{function}.operand", array)
        axis = [ir.AttrInt64("axis", -1 if old.shape is None else len(old.shape) - 1)] if function == "gather" else []
        new = self.node(_OPS[function], [old, constant], name or f"{value}.{function}", old.producer(), axis)
        new.type = old.type
        new.shape = None if old.shape is None else ir.Shape(result_shape(function, tuple(old.shape), array))
        for node, position in uses:
            node.replace_input_with(position, new)
        if readers is None and old.is_graph_output():
            self._return_instead(old, new)
        return new.name or ""

    def through(self, op: str, position: int) -> tuple[str, str | None]:
        """What an op reads at a position, and its only used output; None where none is used.

        Raises:
            Refused: there is no such input, or there are several such outputs.
        """
        node = self._nodes[op]
        used = [output for output in node.outputs if output.uses() or output.is_graph_output()]
        if position >= len(node.inputs) or (source := node.inputs[position]) is None:
            raise Refused(f"`{op}` ({node.op_type}) reads nothing that could stand for what it makes")
        if len(used) > 1:
            raise Refused(f"`{op}` ({node.op_type}) makes {len(used)} values that are read")
        return source.name or "", used[0].name if used else None

    def bypass(self, op: str, position: int) -> None:
        """Leave an op out; an output that is also fed, stored or another output stays a copy of it.

        Raises:
            Refused: as `through`.
        """
        node, (start, end) = self._nodes[op], self.through(op, position)
        source = self._values[start]
        if end is not None and not self._read_instead(self._values[end], source, node.op_type == "Identity"):
            return
        reads = node.inputs
        self._graph.remove(node, safe=True)
        for value in reads:
            self.drop(value)

    def use_constant(self, op: str, position: int, name: str) -> None:
        """Let an op read a constant that there is."""
        node, constant = self._nodes[op], self._values[name]
        old = node.inputs[position]
        if old is not constant:
            node.replace_input_with(position, constant)
            self.drop(old)

    def remove(self, value: str, instead: str) -> None:
        """Let readers of a value read another; what only the first needed goes."""
        self.take_place(self._values[value], self._values[instead])

    def take_place(self, old: ir.Value, new: ir.Value) -> None:
        """Let readers of a value read another; what only the first needed goes."""
        self._read_instead(old, new)
        self.sweep(old)

    def replace_region(self, value: str, source: str, matrix: Array, bias: Array | None, name: str) -> str:
        """Make a value by a product of another; the name of the matrix."""
        old, read = self._values[value], self._values[source]
        name = name or value
        weight = self.constant(f"{name}.weight", matrix)
        new = self.node("MatMul", [read, weight], f"{name}.product", read.producer())
        new.type, new.shape = old.type, old.shape
        if bias is not None:
            added = [new, self.constant(f"{name}.bias", bias)]
            new = self.node("Add", added, f"{name}.sum", new.producer())
            new.type, new.shape = old.type, old.shape
        self._read_instead(old, new)
        self.sweep(old)
        return weight.name or ""

    def cut(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Let the graph be fed some values and return others; what nobody needs any more is left in it."""
        returned = [self._values[name] for name in outputs]
        constants = [value for value in self._graph.inputs if value.is_initializer()]
        fed = [self._fed(self._values[name]) for name in inputs]
        self._graph.outputs.clear()
        self._graph.outputs.extend(returned)
        self._graph.inputs.clear()
        self._graph.inputs.extend([*fed, *constants])

    def _fed(self, old: ir.Value) -> ir.Value:
        """An input in the place of a value, under its name."""
        if old.is_graph_input():
            return old
        name, old.name = old.name or "", self.fresh_name(f"{old.name}.computed")
        new = ir.Value(name=name, type=old.type, shape=old.shape)
        for reader, position in old.uses():
            reader.replace_input_with(position, new)
        return new

    def retype(self, value: str, dtype: ir.DataType) -> None:
        """Give an input or an output another type, with a cast between it and what it was."""
        old = self._values[value]
        if old.is_graph_input():
            new = ir.Value(name=value, type=ir.TensorType(dtype), shape=old.shape)
            uses = list(old.uses())
            old.name = self.fresh_name(f"{value}.{dtype.name.lower()}")
            self._graph.inputs[self._graph.inputs.index(old)] = new
            cast = self.node("Cast", [new], old.name, None, [ir.AttrInt64("to", self._type(old))])
            cast.type, cast.shape = old.type, old.shape
            for reader, position in uses:
                reader.replace_input_with(position, cast)
            return
        cast = self.node(
            "Cast", [old], f"{value}.{dtype.name.lower()}", old.producer(), [ir.AttrInt64("to", dtype.value)]
        )
        cast.type, cast.shape = ir.TensorType(dtype), old.shape
        self._return_instead(old, cast)

    def _type(self, value: ir.Value) -> int:
        assert value.type is not None
        return int(value.type.dtype.value)

    def sweep(self, value: ir.Value) -> None:
        """Remove what made a value that nobody needs, and what only that needed."""
        todo = [value.producer()]
        while todo:
            node = todo.pop()
            if node is None or node.graph is not self._graph:
                continue
            if any(output.uses() or output.is_graph_output() for output in node.outputs):
                continue
            reads = [one for one in node.inputs if one is not None] + _captured(node)
            for inner in inside(node):  # else what they read from around them seems to be read for ever
                for position in range(len(inner.inputs)):
                    inner.replace_input_with(position, None)
            self._graph.remove(node, safe=True)
            for one in reads:
                self.drop(one)
                todo.append(one.producer())

    def _read_instead(self, old: ir.Value, new: ir.Value, is_copy: bool = False) -> bool:
        """Let readers of a value read another; False where it is a copy of that, and nothing is gained."""
        for reader, position in old.uses():
            reader.replace_input_with(position, new)
        if not old.is_graph_output():
            return True
        if new.producer() is None or new.is_graph_output():
            if is_copy:
                return False
            source, new = new, self.node("Identity", [new], f"{new.name}.copy", new.producer())
            new.type, new.shape = source.type, source.shape
        self._return_instead(old, new)
        return True

    def take_name(self, old: ir.Value, new: ir.Value) -> None:
        """Let a value go by the name of another, which gets one of its own, also where the graph returns that."""
        self._return_instead(old, new)

    def _return_instead(self, old: ir.Value, new: ir.Value) -> None:
        """Let the graph return another value, under the same name."""
        name, old.name = old.name, self.fresh_name(f"{old.name}.raw")
        new.name = name
        for position, output in enumerate(self._graph.outputs):
            if output is old:
                self._graph.outputs[position] = new

    def use(self, value: ir.Value, op: str, position: int) -> NodeUse:
        """The use of a value by an op.

        Raises:
            Refused: it does not read the value there.
        """
        node = self._nodes[op]
        if position not in range(len(node.inputs)) or node.inputs[position] is not value:
            raise Refused(f"`{op}` does not read `{value.name}` as operand {position}")
        return node, position

    def _may_have(self, node: ir.Node, position: int) -> bool:
        """The operator has an optional operand there, or any number of them."""
        version = self._graph.opset_imports.get(node.domain, 1)
        try:
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        except onnx.defs.SchemaError:
            return False
        count = len(node.inputs)
        return count <= position < schema.max_input and (position == count or position < len(schema.inputs))

    def constant(self, name: str, array: Array) -> ir.Value:
        """A new constant, named so if that is free."""
        name = self.fresh_name(name)
        tensor = ir.Tensor(np.asarray(array, order="C"), name=name)
        shape = ir.Shape(array.shape)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        self._graph.register_initializer(value)
        self._values[name] = value
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        after: ir.Node | None,
        attributes: Sequence[ir.Attr] = (),
    ) -> ir.Value:
        """Insert a node after another, or before all; what it makes."""
        node = ir.Node("", op_type, inputs, attributes)
        node.name, node.outputs[0].name = self.fresh_name(f"{name}/{op_type}"), self.fresh_name(name)
        if after is not None:
            self._graph.insert_after(after, node)
        elif len(self._graph):
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.append(node)
        return node.outputs[0]

    def rename(self, value: ir.Value, name: str) -> None:
        """Call a value by a free name."""
        value.name = self.fresh_name(name)
        self._values[value.name] = value

    def drop(self, value: ir.Value | None) -> None:
        """Remove a constant that nobody reads any more."""
        if value is None or not value.is_initializer() or value.uses() or value.is_graph_output():
            return
        if value in self._graph.inputs:
            self._graph.inputs.remove(value)
        del self._graph.initializers[value.name or ""]
        self._values.pop(value.name or "", None)
        self._taken.discard(value.name or "")

    def fresh_name(self, name: str) -> str:
        """The name itself where it is free, else with a number."""
        free = fresh(name, self._taken)
        self._taken.add(free)
        return free


def _captured(node: ir.Node) -> list[ir.Value]:
    """What the bodies of a node read from around it."""
    read = (value for inner in inside(node) for value in inner.inputs)
    return [value for value in read if value is not None and value.graph is node.graph]
