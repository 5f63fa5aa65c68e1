"""Attentions over kept blocks as one op of ours each, whose body is what stood there.

What is written by standard ops has names at its borders (`name_borders`), by which it is found again when all else is
done. So nothing new is to be proven: without a library the runtime computes the body.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from qcc.ir.kernel.attend_op import AttendOp
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.onnx.attention.cached.write import cached_ops
from qcc.ir.onnx.attention.dense import write_dense
from qcc.ir.onnx.file.domain import DOMAIN, VERSION
from qcc.ir.onnx.graph.edit import OnnxEditor

_MADE = re.compile(r"(.*\.attend(\d+)x(\d+)x(\d+))\.y", re.ASCII)


def name_borders(editor: OnnxEditor, name: str, op: AttendOp, given: Sequence[ir.Value], made: ir.Value) -> None:
    """Call what an attention over kept blocks reads, in the order of the op's inputs, and makes by names of its own."""
    prefix = f"{name}.attend{op.block}x{op.segment}x{op.channels}"
    for word, value in zip((*op.inputs, *op.outputs), (*given, made), strict=True):
        editor.rename(value, f"{prefix}.{word}")


def write_attends(model: ir.Model, serves: Callable[[KernelOp], bool]) -> tuple[KernelOp, ...]:
    """Put ops in the place of attentions over kept blocks, and of the standard's; those over caches are ops already.

    Args:
        model: is edited.
        serves: there is a kernel for an op.

    Returns:
        The op of each attention of all kinds.
    """
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    found: list[KernelOp] = []
    for name, value in values.items():
        matched = _MADE.fullmatch(name)
        region = None if matched is None else _region(values, matched, value)
        if region is not None and serves(region.op) and _define(model, region):
            node = ir.Node(DOMAIN, region.op.name, region.inputs, name=f"{name}.kernel")
            model.graph.insert_before(region.nodes[-1], node)
            node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = f"{name}.made", value.type, value.shape
            value.replace_all_uses_with(node.outputs[0])
            found.append(region.op)
    if found:
        common.RemoveUnusedNodesPass()(model)
    return (*found, *write_dense(model, serves), *filter(serves, cached_ops(model)))


@dataclass(frozen=True)
class _Region:
    """An attention: its op, what it reads, and the nodes that compute it, in order."""

    op: AttendOp
    inputs: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]


def _region(values: dict[str, ir.Value], matched: re.Match[str], made: ir.Value) -> _Region | None:
    """What stands between the borders, some of which others may read as well; None where a border is gone."""
    op = AttendOp(*map(int, matched.groups()[1:]))
    inputs = [values.get(f"{matched[1]}.{word}") for word in op.inputs]
    given = tuple(one for one in inputs if one is not None)
    inside, todo = set[ir.Node](), [made.producer()]
    while todo:
        node = todo.pop()
        if node is None or node in inside:
            continue
        inside.add(node)
        for value in node.inputs:
            if value is None or value in given or value.is_initializer():
                continue
            if value.producer() is None:
                return None
            todo.append(value.producer())
    graph = made.graph
    if len(given) < len(inputs) or made.is_graph_output() or not isinstance(graph, ir.Graph):
        return None
    return _Region(op, given, tuple(node for node in graph if node in inside))


def _define(model: ir.Model, region: _Region) -> bool:
    """Write the function; False where there is another of the name, as of sizes that are written down."""
    opset = model.graph.opset_imports[""]
    known: dict[ir.Value, ir.Value] = {}
    fed = [ir.Value(name=word) for word in region.op.inputs]
    known.update(zip(region.inputs, fed, strict=True))
    nodes = list[ir.Node]()
    for node in region.nodes:
        for value in node.inputs:
            if value is not None and value not in known and value.const_value is not None:
                held = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)])
                nodes.append(held)
                known[value] = held.outputs[0]
        reads = [None if value is None else known[value] for value in node.inputs]
        copy = ir.Node(node.domain, node.op_type, reads, list(node.attributes.values()), num_outputs=len(node.outputs))
        known.update(zip(node.outputs, copy.outputs, strict=True))
        nodes.append(copy)
    for at, node in enumerate(nodes):
        node.name = f"n{at}"
        for number, value in enumerate(node.outputs):
            value.name = f"v{at}.{number}"
    made = nodes[-1].outputs[0]
    made.name = region.op.outputs[0]
    graph = ir.Graph(fed, [made], nodes=nodes, opset_imports={"": opset})
    function = ir.Function(DOMAIN, region.op.name, "", graph=graph, attributes=[])
    before = model.functions.get(function.identifier())
    if before is not None:
        texts = (ir.serde.serialize_function(one).SerializeToString(deterministic=True) for one in (before, function))
        return len(set(texts)) == 1
    model.functions[function.identifier()] = function
    model.graph.opset_imports.setdefault(DOMAIN, VERSION)
    return True
