"""Which nodes of a model its kernel library runs, and which the model's own functions do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from qcc.compiler.console.fit_table import Column, Table, plain
from qcc.compiler.console.numbered_names import collapse
from qcc.compiler.runtime.serves import serves
from qcc.ir.kernel.kernel_op import KernelOp, parse_kernel
from qcc.ir.kernel.op import OpError
from qcc.ir.onnx.file import load as onnx_load
from qcc.ir.onnx.file.domain import DOMAIN


@dataclass(frozen=True)
class KernelNode:
    """A node of domain ``qcc`` that a library may take.

    ``by_kernel`` says that the library took it; else its function's standard body runs.
    """

    name: str
    op: str
    by_kernel: bool


def kernel_nodes(model: Path, library: str | None, providers: Sequence[str] = ()) -> tuple[KernelNode, ...]:
    """The nodes whose ops name kernels, in the model's order, subgraphs included.

    Args:
        model: an ``.onnx`` file; its weights are not read.
        library: as `loadable` spells it; None for none.
        providers: the runtime's, by which it is run.

    Raises:
        ModelError: the file cannot be read.
    """
    found = [(node, op) for node in _nodes(onnx_load.parse(model).proto.graph) if (op := _kernel_op(node)) is not None]
    taken = set() if library is None else serves(library, {op for _, op in found}, providers)
    return tuple(KernelNode(node.name or node.output[0], node.op_type, op in taken) for node, op in found)


def summary(nodes: tuple[KernelNode, ...]) -> str:
    """How many nodes the library runs, in a few words."""
    if not nodes:
        return "no node is a kernel's"
    count = sum(node.by_kernel for node in nodes)
    return f"kernels run {count} of {len(nodes)} node{'' if len(nodes) == 1 else 's'}"


def listing(nodes: tuple[KernelNode, ...]) -> str:
    """A line a node, those of repeated layers as one."""
    found = collapse(nodes, lambda node: node.name, lambda node: (node.op, node.by_kernel))
    rows = tuple((name, part[0].op, "kernel" if part[0].by_kernel else "function") for name, part in found)
    return plain(Table(tuple(map(Column, ("node", "op", "run by"))), rows))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(inner)


def _kernel_op(node: onnx.NodeProto) -> KernelOp | None:
    """The kernel op that a node calls, if it calls one."""
    if node.domain != DOMAIN:
        return None
    try:
        return parse_kernel(node.op_type)
    except OpError:
        return None
