"""Running a piece of an ATen graph."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Graph, GraphModule, Node

from qcc.ir.errors import ModelError, first_line
from qcc.ir.fx.tensors import to_array, to_tensor
from qcc.ir.graph.ops import Array, Feeds


def extract(graph: Graph, inputs: Iterable[Node], outputs: Sequence[Node], held: Mapping[Node, Any]) -> GraphModule:
    """A module of the nodes between ``inputs`` and ``outputs``, with what they read of the things ``held``.

    Raises:
        ValueError: an output depends on an input of the graph that is not among ``inputs``.
    """
    piece = Graph()
    copies = {node: piece.placeholder(node.name) for node in inputs}
    needed = _needed(outputs, copies.keys())
    kept = {node.name: held[node] for node in needed if node in held}
    for node in graph.nodes:
        if node not in needed:
            continue
        if node.name in kept:
            copies[node] = piece.get_attr(node.name)
        elif node.op == "placeholder":
            raise ValueError(f"the outputs depend on `{node.name}`, which is not fed")
        else:
            copies[node] = piece.node_copy(node, copies.__getitem__)
    piece.output(tuple(copies[node] for node in outputs))
    return GraphModule(kept, piece)


class FxRunner:
    """Runs a piece of a graph.

    Args:
        piece: what `extract` made; its inputs are ``inputs`` then ``free``.
        inputs: names of what must be fed; True for a tensor, False for a number.
        free: constants that may be fed, and their values if they are not.
        outputs: names of the results.
    """

    def __init__(
        self, piece: GraphModule, inputs: Mapping[str, bool], free: Mapping[str, torch.Tensor], outputs: Sequence[str]
    ) -> None:
        self._piece = piece
        self._inputs = inputs
        self._free = free
        self._outputs = outputs

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Run once.

        Raises:
            ModelError: a feed is missing or unknown, or torch fails on these feeds.
        """
        known = self._inputs.keys() | self._free.keys()
        for name in [*(self._inputs.keys() - feeds.keys()), *(feeds.keys() - known)]:
            raise ModelError("Q406", f"`{name}` is {'not an input' if name in feeds else 'not fed'}")
        try:
            given = [fed(feeds[name], tensor) for name, tensor in self._inputs.items()]
            given += [to_tensor(feeds[name]) if name in feeds else value for name, value in self._free.items()]
            with torch.no_grad():
                results = self._piece(*given)
        except Exception as error:  # torch raises many unrelated classes
            raise failed(error) from error
        return {name: result(one) for name, one in zip(self._outputs, results, strict=True)}


def _needed(outputs: Iterable[Node], given: Iterable[Node]) -> set[Node]:
    """The nodes that the outputs depend on, as far as the given ones."""
    stops, needed, todo = set(given), set[Node](), list(outputs)
    while todo:
        node = todo.pop()
        if node not in needed and node not in stops:
            needed.add(node)
            todo += node.all_input_nodes
    return needed


def fed(array: Array, tensor: bool) -> Any:  # noqa: ANN401 - a tensor or a number
    """What torch takes for an array: a tensor, or a number where it wants that."""
    return to_tensor(array) if tensor else array.item()


def result(value: object) -> Array:
    """What torch gave, as an array."""
    return to_array(value) if isinstance(value, torch.Tensor) else np.asarray(value)


def failed(error: Exception) -> ModelError:
    """What to say where torch fails on feeds."""
    return ModelError("Q406", f"PyTorch failed while running the model: {first_line(error)}")
