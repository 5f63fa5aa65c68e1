"""Which kernel ops a model calls: what a library for it must bring."""

from collections.abc import Iterator
from pathlib import Path

import onnx

from qcc.ir.kernel.op import LinearOp, OpError, parse
from qcc.ir.onnx.file import load as onnx_load
from qcc.ir.onnx.file.check import subgraphs
from qcc.ir.onnx.file.domain import DOMAIN


def kernel_ops(model: Path | onnx.ModelProto) -> set[LinearOp]:
    """The kernel ops that the nodes of a model call, its branches and loop bodies included.

    Other functions of our domain, such as those that only decode, are none.

    Raises:
        ModelError: the file cannot be read.
    """
    proto = onnx_load.parse(model).proto if isinstance(model, Path) else model
    return set(_ops(proto.graph))


def _ops(graph: onnx.GraphProto) -> Iterator[LinearOp]:
    for node in graph.node:
        if node.domain == DOMAIN:
            try:
                yield parse(node.op_type)
            except OpError:
                continue
        for inner in subgraphs(node):
            yield from _ops(inner)
