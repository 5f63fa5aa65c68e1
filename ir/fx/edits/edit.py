"""Structural edits of an ATen graph: an operand of an op's own, an op put in, an op left out."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from qcc.ir.errors import Refused
from qcc.ir.fx.edits.simplify import COPIES, is_item
from qcc.ir.fx.kinds import aten_name
from qcc.ir.fx.operands import ArgumentPlace, CallNumber, operands, places, put, takes_tensor
from qcc.ir.fx.tensors import to_tensor
from qcc.ir.graph.edits import fresh, result_shape
from qcc.ir.graph.ops import Array

_OPS = {
    "mul": torch.ops.aten.mul.Tensor,
    "add": torch.ops.aten.add.Tensor,
    "gather": torch.ops.aten.index_select.default,
    "linear": torch.ops.aten.linear.default,
}


class FxEditor:
    """Edits a graph, its constants and their paths. What is refused has changed nothing.

    Args:
        graph: the graph.
        tensors: the constants by their placeholders; new ones stand behind all that the program came with.
        paths: where the module keeps them, or would.
    """

    def __init__(self, graph: Graph, tensors: dict[Node, torch.Tensor], paths: dict[Node, str]) -> None:
        self._graph = graph
        self._tensors = tensors
        self._paths = paths

    def set_operand(self, node: Node, position: int, array: Array, path: str) -> Node:
        """Give an op a constant of its own, at this path if that is free.

        Raises:
            Refused: the op has no such operand, or it is a number.
        """
        place, old = self._place(node, position)
        put(node, place, None)
        if isinstance(old, Node):
            self._drop(old)
        constant = self.hold(path, array)
        put(node, place, constant)
        return constant

    def insert(
        self, function: str, old: Node, array: Array, readers: Sequence[tuple[Node, int]] | None, name: str
    ) -> Node:
        """Put an op behind a value.

        Raises:
            Refused: a reader does not read the value, or the value cannot leave its name to another.
        """
        value = old.meta["val"]
        if not isinstance(value, torch.Tensor):
            raise Refused(f"`{old.name}` is not a tensor")
        if readers is None and old.op == "placeholder" and self._is_result(old):
            raise Refused(f"`{old.name}` is returned as it is fed or stored: nothing can be put between")
        uses = None if readers is None else [self.use(old, node, position) for node, position in readers]
        held = np.ascontiguousarray(array.T) if function == "linear" else array
        constant = self.hold(f"{name}.weight" if name else f"{old.name}.{function}.operand", held)
        given = (old, -1, constant) if function == "gather" else (old, constant)
        with self._graph.inserting_after(constant if old.op == "placeholder" else old):
            new = self._graph.create_node("call_function", _OPS[function], given, name=f"{old.name}_{function}")
        new.meta["val"] = value.new_empty(result_shape(function, tuple(value.shape), array))
        for node, place in uses or ():
            put(node, place, new)
        if readers is None:
            old.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
            if self._is_result(new):
                self._take_name(new, old)
        return new

    def call(self, target: Callable[..., Any], after: Node, *given: Node | float | list[int] | list[Node]) -> Node:
        """Put a call behind a node, or behind all that is fed or stored."""
        *_, last = self._graph.find_nodes(op="placeholder")
        with self._graph.inserting_after(last if after.op == "placeholder" else after):
            new = self._graph.call_function(target, given)
        new.meta["val"] = target(*map_arg(given, lambda one: one.meta["val"]))
        return new

    def through(self, node: Node, position: int) -> tuple[Node, Node | None]:
        """What an op reads at a position, and its only used output; None where none is used.

        Raises:
            Refused: there is no such input, or there are several such outputs.
        """
        reads, used = operands(node), [result for result in _results(node) if result.users]
        if position >= len(reads) or not isinstance(source := reads[position], Node):
            raise Refused(f"`{node.name}` reads nothing that could stand for what it makes")
        if len(used) > 1:
            raise Refused(f"`{node.name}` makes {len(used)} values that are read")
        return source, used[0] if used else None

    def bypass(self, node: Node, position: int) -> None:
        """Leave an op out; an output that is also fed, stored or another output stays a copy of it.

        Raises:
            Refused: as `through`.
        """
        source, result = self.through(node, position)
        if result is not None and not self._read_instead(result, source, node if aten_name(node) in COPIES else None):
            return
        reads = node.all_input_nodes
        for one in [*(item for item in _results(node) if item is not node), node]:
            self._graph.erase_node(one)
        for one in reads:
            self._drop(one)

    def use_constant(self, node: Node, position: int, constant: Node) -> None:
        """Let an op read a constant that there is.

        Raises:
            Refused: the op takes no tensor there.
        """
        place, old = self._place(node, position)
        put(node, place, constant)
        if isinstance(old, Node):
            self._drop(old)

    def remove(self, old: Node, new: Node) -> None:
        """Let readers of a value read another; what only the first needed goes."""
        self._read_instead(old, new)
        self._sweep(old)

    def replace_region(self, old: Node, source: Node, matrix: Array, bias: Array | None, name: str) -> Node:
        """Make a value by a product of another; the matrix's constant."""
        name = name or old.name
        weight = self.hold(f"{name}.weight", np.ascontiguousarray(matrix.T))
        given = (source, weight) if bias is None else (source, weight, self.hold(f"{name}.bias", bias))
        with self._graph.inserting_after(given[-1] if source.op == "placeholder" else source):
            new = self._graph.create_node("call_function", torch.ops.aten.linear.default, given)
        new.meta["val"] = old.meta["val"]
        self._read_instead(old, new)
        self._sweep(old)
        return weight

    def cut(self, inputs: Sequence[Node], outputs: Sequence[Node]) -> list[Node]:
        """Let the graph be fed some values and return others; the placeholders of the first."""
        self._graph.output_node().args = (tuple(outputs),)
        return [node if node.op == "placeholder" else self._feed(node) for node in inputs]

    def _feed(self, old: Node) -> Node:
        """A placeholder in the place of a value, under its name."""
        *_, last = self._graph.find_nodes(op="placeholder")
        with self._graph.inserting_after(last):
            new = self._graph.placeholder(old.name)
        new.meta["val"] = old.meta["val"]
        old.replace_all_uses_with(new)
        self._take_name(new, old)
        new.target = new.name
        return new

    def retype(self, node: Node, dtype: torch.dtype) -> None:
        """Give an input or an output another type, with a cast between it and what it was."""
        value, fed = node.meta["val"], node.op == "placeholder"
        users = [user for user in node.users if fed or user.op == "output"]
        *_, last = self._graph.find_nodes(op="placeholder")
        with self._graph.inserting_after(last if fed else node):
            to = {"dtype": value.dtype if fed else dtype}
            cast = self._graph.create_node("call_function", torch.ops.aten._to_copy.default, (node,), to)
        other = value.new_empty(value.shape, dtype=dtype)
        cast.meta["val"], node.meta["val"] = (value, other) if fed else (other, value)
        for user in users:
            user.replace_input_with(node, cast)
        if not fed:
            self._take_name(cast, node)

    def _sweep(self, node: Node) -> None:
        """Remove what made a value that nobody needs, and what only that needed."""
        todo = [node]
        while todo:
            one = todo.pop()
            if one.users or one.op != "call_function" or one.graph is not self._graph or one._erased:
                continue
            reads = one.all_input_nodes
            self._graph.erase_node(one)
            for other in reads:
                self._drop(other)
            todo += reads

    def _read_instead(self, old: Node, new: Node, copy: Node | None = None) -> bool:
        """Let readers of a value read another; False where it is a copy of that, and nothing is gained."""
        returned = self._is_result(old)
        old.replace_all_uses_with(new, delete_user_cb=lambda user: user.op != "output")
        if not returned:
            return True
        if new.op == "placeholder" or self._is_result(new):
            if copy is not None:
                return False
            with self._graph.inserting_before(old):
                new = self._graph.create_node("call_function", torch.ops.aten.clone.default, (source := new,))
            new.meta["val"] = source.meta["val"]
        old.replace_all_uses_with(new)
        self._take_name(new, old)
        return True

    def read_instead(self, old: Node, new: Node, users: Sequence[Node]) -> None:
        """Let users of a node read another, which the program returns under the same name if it returned that."""
        old.replace_all_uses_with(new, delete_user_cb=lambda user: user in users)
        if self._is_result(new):
            self._take_name(new, old)

    def _take_name(self, new: Node, old: Node) -> None:
        """Let the graph return a value under the name that another had."""
        name = old.name
        old.name = self._graph._graph_namespace.create_name(f"{name}_raw", None)
        new.name = name

    def _is_result(self, node: Node) -> bool:
        return any(user.op == "output" for user in node.users)

    def use(self, value: Node, node: Node, position: int) -> tuple[Node, ArgumentPlace]:
        """The use of a value by an op.

        Raises:
            Refused: it does not read the value there.
        """
        found = places(node)
        if position not in range(len(found)) or found[position][1] is not value:
            raise Refused(f"`{node.name}` does not read `{value.name}` as operand {position}")
        return node, found[position][0]

    def _place(self, node: Node, position: int) -> tuple[ArgumentPlace, Node | None]:
        found = places(node)
        if position not in range(len(found)):
            raise Refused(f"`{node.name}` ({aten_name(node)}) takes no operand {position}")
        place, old = found[position]
        if not takes_tensor(node, place):
            raise Refused(f"operand {position} of `{node.name}` ({aten_name(node)}) is a number, never a tensor")
        return place, None if isinstance(old, CallNumber) else old

    def hold(self, path: str, array: Array) -> Node:
        """A new constant, at this path if that is free."""
        tensor = to_tensor(np.asarray(array, order="C"))
        path = fresh(path, {*self._paths.values(), *(node.name for node in self._graph.nodes)})
        *_, last = self._graph.find_nodes(op="placeholder")
        with self._graph.inserting_after(last):
            node = self._graph.placeholder(path)
        like = next(one.meta["val"] for one in self._graph.nodes if isinstance(one.meta.get("val"), torch.Tensor))
        node.meta["val"] = like.new_empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        node.target = node.name
        self._tensors[node] = tensor
        self._paths[node] = path
        return node

    def _drop(self, node: Node) -> None:
        """Forget a constant that nobody reads any more; its placeholder stays, as the program counts them."""
        if node in self._tensors and not node.users:
            del self._tensors[node], self._paths[node]


def _results(node: Node) -> list[Node]:
    """An op's results: what picks them where there are several."""
    items = [user for user in node.users if is_item(user)]
    return items or [node]
