"""Computing constants that are made of constants, as is done to ONNX models, so that the same weights are found.

Only what makes the file no larger is taken: neither a table that is spread out, nor a turned copy of what is read
elsewhere too.
"""

from collections.abc import Container
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Graph, Node

from qcc.ir.fx.edits.edit import FxEditor
from qcc.ir.fx.kinds import aten_name
from qcc.ir.fx.tensors import to_array

MOST_SPREAD = 8  # times what it is made of: no value on the way is larger
SMALL_BYTES = 4096  # constants up to this size tie nothing together: a number, an axis
VIEWS = frozenset(
    {"clone", "contiguous", "to", "_to_copy", "detach", "alias", "lift_fresh_copy", "expand"}
    | {"permute", "transpose", "t", "numpy_T", "view", "reshape", "_unsafe_view"}
)
"""Layers see through them: as the last ops they are left."""


@dataclass(frozen=True)
class FixedPart:
    """Ops that hang together, the constants that only they read, and what others read of them."""

    nodes: list[Node]
    gone: list[Node]
    makes: list[Node]

    @property
    def pays(self) -> bool:
        """The file gets no larger."""
        return bool(self.makes) and sum(map(_size, self.gone)) >= sum(map(_size, self.makes))

    def path_of(self, made: Node, paths: dict[Node, str]) -> str:
        """What a result is called: a weight that is only turned or scaled keeps its path."""
        large = [node for node in self.gone if 8 * _size(node) >= sum(map(_size, self.makes))]
        return paths[large[0]] if len(self.makes) == len(large) == 1 else made.name


def fold_constants(graph: Graph, editor: FxEditor, tensors: dict[Node, Tensor], paths: dict[Node, str]) -> None:
    """Compute what is made of constants alone."""
    for part in _parts(_candidates(graph, tensors), tensors):
        if part.pays:
            _fold(part, graph, editor, tensors, paths)


def _candidates(graph: Graph, tensors: Container[Node]) -> list[Node]:
    """The nodes that could be computed, in order; those at the end that only show a constant otherwise are left."""
    found: dict[Node, None] = {}
    for node in graph.nodes:
        reads = node.all_input_nodes
        if reads and _computes(node) and all(one in tensors or one in found for one in reads) and _fits(node):
            found[node] = None
    for node in reversed(list(found)):
        if aten_name(node) in VIEWS and not any(user in found for user in node.users):
            del found[node]
    return list(found)


def _computes(node: Node) -> bool:
    """An op that makes one tensor, changes nothing and draws nothing; no result of the program."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    draws = torch.Tag.nondeterministic_seeded in node.target.tags
    returned = any(user.op == "output" for user in node.users)
    return not (node.target._schema.is_mutable or draws or returned) and isinstance(node.meta.get("val"), Tensor)


def _fits(node: Node) -> bool:
    """Its result is of known size, and not much larger than what it is made of."""
    value = node.meta["val"]
    if not all(isinstance(size, int) for size in value.shape):
        return False
    return _size(node) <= MOST_SPREAD * sum(map(_size, node.all_input_nodes)) + SMALL_BYTES


def _size(node: Node) -> int:
    """Bytes of its tensor."""
    value = node.meta["val"]
    return int(value.numel() * value.element_size())


def _parts(nodes: list[Node], tensors: Container[Node]) -> list[FixedPart]:
    """Parts of the nodes that share nothing but small constants."""
    mine, above = set(nodes), dict[Node, Node]()

    def root(one: Node) -> Node:
        while above.setdefault(one, one) is not one:
            one = above[one]
        return one

    for node in nodes:
        for read in node.all_input_nodes:
            if read in mine or _size(read) > SMALL_BYTES:
                above[root(read)] = root(node)
    found: dict[Node, list[Node]] = {}
    for node in nodes:
        found.setdefault(root(node), []).append(node)
    return [_part(part, tensors) for part in found.values()]


def _part(nodes: list[Node], tensors: Container[Node]) -> FixedPart:
    mine = set(nodes)
    reads = dict.fromkeys(read for node in nodes for read in node.all_input_nodes if read in tensors)
    gone = [read for read in reads if all(user in mine for user in read.users)]
    return FixedPart(nodes, gone, [node for node in nodes if any(user not in mine for user in node.users)])


def _fold(part: FixedPart, graph: Graph, editor: FxEditor, tensors: dict[Node, Tensor], paths: dict[Node, str]) -> None:
    """Compute a part and put constants in its place."""
    known: dict[Node, Tensor] = dict(tensors)
    with torch.no_grad():
        for node in part.nodes:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), known.__getitem__)
            assert isinstance(node.target, torch._ops.OpOverload)
            known[node] = node.target(*args, **kwargs)
    called = {node: part.path_of(node, paths) for node in part.makes}
    for node in part.gone:
        del tensors[node], paths[node]
    for node in part.makes:
        constant = editor.hold(called[node], to_array(known[node]))
        for user in [user for user in node.users if user not in part.nodes]:
            user.replace_input_with(node, constant)
    for node in reversed(part.nodes):
        graph.erase_node(node)
