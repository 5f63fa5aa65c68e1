"""Other sizes for a part of an ATen graph: constants, the sizes that calls say, and shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from qcc.ir.errors import Refused, first_line
from qcc.ir.fx.edits.edit import FxEditor
from qcc.ir.fx.kinds import arguments, aten_name
from qcc.ir.fx.tensors import to_tensor
from qcc.ir.graph.ops import Array, Attribute

_SHAPES = {"view": "size", "_unsafe_view": "size", "reshape": "shape", "expand": "size", "broadcast_to": "size"}
_GROUPS = {"group_norm": "num_groups"}


class FxResizer:
    """Edits a graph so that its values get other sizes.

    Args:
        editor: of the graph.
        tensors: its constants by their placeholders.
    """

    def __init__(self, editor: FxEditor, tensors: dict[Node, torch.Tensor]) -> None:
        self.editor = editor
        self._tensors = tensors
        self._changed: set[Node] = set()

    def give(self, node: Node, array: Array) -> None:
        """Give a constant another array, for all that read it."""
        tensor = to_tensor(array)
        old = node.meta["val"]
        node.meta = {**node.meta, "val": old.new_empty(tensor.shape, dtype=tensor.dtype)}
        self._tensors[node] = tensor
        self._changed.add(node)

    def give_one(self, node: Node, position: int, array: Array, path: str) -> None:
        """Give one use of a constant another array."""
        self._changed.add(self.editor.set_operand(node, position, array, path))

    def write(self, node: Node, function: str, asked: Mapping[str, Attribute]) -> None:
        """Write attributes of a call in its own spelling.

        Raises:
            Refused: it cannot say them.
        """
        self._changed.add(node)
        if function in ("reshape", "expand"):
            self._write_sizes(node, _numbers(asked["sizes"]))
        elif function == "split":
            _split(node, _numbers(asked["sizes"]))
        elif function == "slice":
            for name, argument in (("starts", "start"), ("ends", "end")):
                _set(node, argument, _numbers(asked[name])[0])
        elif "groups" in asked:
            _set(node, _GROUPS.get(aten_name(node), "groups"), _numbers(asked["groups"])[0])

    def _write_sizes(self, node: Node, sizes: Sequence[int]) -> None:
        name = aten_name(node)
        if name == "unflatten":
            first = arguments(node)["dim"] % (len(sizes) - len(arguments(node)["sizes"]) + 1)
            _set(node, "sizes", _mended(arguments(node)["sizes"], sizes[first:]))
        elif name in _SHAPES:
            old = arguments(node)[_SHAPES[name]]
            _set(node, _SHAPES[name], _mended(old, sizes[len(sizes) - len(old) :]))

    def infer(self, graph: Graph) -> None:
        """Let shapes follow from what changed.

        Raises:
            Refused: a call does not take what it gets.
        """
        for node in graph.nodes:
            if node.op == "call_function" and not self._changed.isdisjoint((node, *node.all_input_nodes)):
                _again(node)
                self._changed.add(node)


def _again(node: Node) -> None:
    """Make a call anew on tensors without data."""
    values = [one.meta.get("val") for one in node.all_input_nodes]
    fake = next((one for one in values if isinstance(one, torch.Tensor) and hasattr(one, "fake_mode")), None)
    if any(value is None for value in values):
        return
    args, kwargs = map_arg((node.args, node.kwargs), lambda one: one.meta["val"])
    try:
        if fake is None:
            found = node.target(*args, **kwargs)  # type: ignore[operator]
        else:
            with fake.fake_mode:
                found = node.target(*args, **kwargs)  # type: ignore[operator]
    except Exception as error:  # torch raises many unrelated classes
        raise Refused(f"`{node.name}` does not take these sizes: {first_line(error)}") from error
    node.meta = {**node.meta, "val": found}


def _numbers(attribute: Attribute) -> tuple[int, ...]:
    return tuple(map(int, attribute)) if isinstance(attribute, tuple) else (int(attribute),)


def _mended(old: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    """Sizes as they are now; those that are computed, or follow from the others, stay as they are spelled."""
    pairs = zip(old, sizes, strict=False)
    return [size if isinstance(one, int) and one != -1 and size >= 0 else one for one, size in pairs]


def _set(node: Node, argument: str, value: Any) -> None:  # noqa: ANN401 - whatever the schema says
    assert isinstance(node.target, torch._ops.OpOverload)
    position = [one.name for one in node.target._schema.arguments].index(argument)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(argument, value)


def _split(node: Node, sizes: Sequence[int]) -> None:
    """Parts of any sizes, whatever they were spelled as."""
    given = arguments(node)
    node.target = torch.ops.aten.split_with_sizes.default
    node.args, node.kwargs = (given["self"], list(sizes), given["dim"]), {}
