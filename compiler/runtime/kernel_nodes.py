"""Which nodes of a model its kernel library runs, and which the model's own functions do."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from qcc.compiler.console.fit_table import Column, Table, plain
from qcc.compiler.console.numbered_names import collapse
from qcc.compiler.files.kernel_library import register
from qcc.ir.kernel.op import OpError, parse
from qcc.ir.onnx.file import load as onnx_load
from qcc.ir.onnx.file.domain import DOMAIN
from qcc.ir.onnx.file.runtime import onnxruntime


@dataclass(frozen=True)
class KernelNode:
    """A node of domain ``qcc`` that a library may take.

    ``by_kernel`` says that the library took it; else its function's standard body runs.
    """

    name: str
    op: str
    by_kernel: bool


def kernel_nodes(model: Path, library: str | None) -> tuple[KernelNode, ...]:
    """The nodes whose ops name kernels, in the model's order, subgraphs included.

    A library that needs instructions which the processor lacks takes none, and one that was built for another model
    takes what it knows. So each op is tried: a model of the smallest node that has it, but without its function, loads
    only if the library took the node. Weights are not read.

    Args:
        model: an ``.onnx`` file.
        library: as `loadable` spells it; None for none.

    Raises:
        ModelError: the file cannot be read.
    """
    proto = onnx_load.parse(model).proto
    constants = dict(_constants(proto.graph))
    nodes = [node for node in _nodes(proto.graph) if node.domain == DOMAIN and _names_kernel(node.op_type)]
    smallest: dict[str, onnx.NodeProto] = {}
    for node in sorted(nodes, key=lambda node: _elements(node, constants)):
        smallest.setdefault(node.op_type, node)
    taken = {
        op: library is not None and _loads(_alone(node, constants, proto), library) for op, node in smallest.items()
    }
    return tuple(KernelNode(node.name or node.output[0], node.op_type, taken[node.op_type]) for node in nodes)


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


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in _nodes(graph):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], attribute.t
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from ((tensor.name, tensor) for tensor in inner.initializer)


def _names_kernel(op: str) -> bool:
    try:
        parse(op)
    except OpError:
        return False
    return True


def _elements(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> int:
    return sum(int(np.prod(constants[name].dims)) for name in node.input if name in constants)


def _alone(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model of that node, one in place of its weights: steps of activations are never zero."""
    used = {name: constants[name] for name in node.input if name in constants}
    ones = [
        numpy_helper.from_array(np.ones(tensor.dims, helper.tensor_dtype_to_np_dtype(tensor.data_type)), name)
        for name, tensor in used.items()
    ]
    free = dict.fromkeys(name for name in node.input if name and name not in used)
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in free]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in node.output if name]
    graph = helper.make_graph([node], "probe", inputs, outputs, ones)
    return helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)


def _loads(model: onnx.ModelProto, library: str) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    register(options, library)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # the runtime raises a dozen unrelated classes
        return False
    return True
