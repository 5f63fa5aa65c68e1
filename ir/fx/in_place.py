"""Ops that write into what another op has just made, as the ops that make something new.

A module's ``relu_`` or ``+=`` mostly works on the fresh result of a layer: then what is written in place is what all
later readers see. torch's own decomposition says the same of any program, but traces all of it anew, which takes as
long as the export did.
"""

import torch
from torch.fx import Graph, Node

from qcc.ir.fx.kinds import arguments, aten_name, kind_of
from qcc.ir.graph.ops import Kind
from qcc.ir.vocabulary.find import OPS

FRESH = (
    *(Kind.CONV, Kind.MATMUL, Kind.ATTENTION, Kind.NORM, Kind.SOFTMAX),
    *(Kind.POOL, Kind.ELEMENTWISE, Kind.BINARY, Kind.CONCAT),
)
"""Kinds whose ops make a tensor of their own, but for what may leave all numbers as they are."""


def make_anew(graph: Graph) -> None:
    """Replace ops that write in place where what they write into is fresh, and read by none before them."""
    for node in list(graph.nodes):
        other = _functional(node)
        if other is None:
            continue
        source = node.args[0]
        if _writes_nothing(node):
            node.target = other
            continue
        if not isinstance(source, Node) or not _is_fresh(source) or node != _first_reader(source):
            continue
        node.target = other
        for reader in [user for user in source.users if user is not node]:
            reader.replace_input_with(source, node)


def _functional(node: Node) -> torch._ops.OpOverload | None:
    """The op that makes what a node writes into its first argument, and nothing else."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    name, written = aten_name(node), [one.alias_info is not None and one.alias_info.is_write for one in _given(target)]
    if not name.endswith("_") or written != [True] + [False] * (len(written) - 1):
        return None
    packet = getattr(torch.ops.aten, name.rstrip("_"), None)
    found = getattr(packet, target._overloadname, None)
    if not isinstance(found, torch._ops.OpOverload) or found._schema.is_mutable:
        return None
    same = [(one.name, str(one.type)) for one in _given(found)] == [(one.name, str(one.type)) for one in _given(target)]
    return found if same and all(one.alias_info is None for one in found._schema.returns) else None


def _writes_nothing(node: Node) -> bool:
    """Of `dropout_` in evaluation its input is left as it is."""
    return arguments(node).get("train") is False


def _given(target: torch._ops.OpOverload) -> list[torch.Argument]:
    return list(target._schema.arguments)


def _is_fresh(node: Node) -> bool:
    """It is a tensor of its own: `dropout` and casts, which are linear, may give back what they were given."""
    known = OPS.get(kind_of(node)) if aten_name(node) else None
    return known is not None and known.kind in FRESH and (known.kind != Kind.ELEMENTWISE or known.law != "linear")


def _first_reader(source: Node) -> Node | None:
    after = source.next
    while after.op != "root":
        if source in after.all_input_nodes:
            return after
        after = after.next
    return None
