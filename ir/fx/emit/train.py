"""Scales of a compact module as parameters, for its user to train."""

import copy

import torch
from torch.fx import GraphModule, Node

from qcc.ir.errors import ModelError
from qcc.ir.fx.emit.assemble import OWN, TABLES
from qcc.ir.fx.quiet import quiet


def trainable(module: torch.nn.Module) -> GraphModule:
    """A copy whose scales are float32 parameters that gradients reach; all else stays as it is.

    The names of its state are those of the module, which takes it back: `module.load_state_dict(tuned.state_dict())`
    rounds scales to what it stores.

    Args:
        module: compact, as `compile` gives it and a ``.pt2`` file holds it.

    Raises:
        ModelError: it holds no scales as floats, ``Q610``.
    """
    with quiet():
        made = copy.deepcopy(module)
    nodes = made.graph.find_nodes(op="get_attr") if isinstance(made, GraphModule) else []
    paths = dict.fromkeys(str(node.target) for node in nodes if _is_stored(node))
    scales = [path for path in paths if made.get_buffer(path).is_floating_point()]
    if not scales or not isinstance(made, GraphModule):
        help = "give the `model` of a result whose weights have scales in floats"
        raise ModelError("Q610", f"no scales to train: `{type(module).__name__}` stores none as floats", help)
    for path in scales:
        owner, _, name = path.rpartition(".")
        scale = made.get_buffer(path)
        holder = made.get_submodule(owner)
        delattr(holder, name)
        holder.register_parameter(name, torch.nn.Parameter(scale.to(torch.float32)))
    return made


def _is_stored(node: Node) -> bool:
    """A part of an encoded weight: what decodes reads it alone, and it is no list of numbers that many share."""
    decoded = all(user.name.startswith(OWN) for user in node.users)
    return bool(node.users) and decoded and not str(node.target).startswith(TABLES)
