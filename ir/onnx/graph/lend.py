"""Lending a session the constants that lie in memory, so that it does not copy them.

A constant in a protobuf is held four times while a session is made of it: in the graph, the protobuf, its bytes and the
session. What lies in a file is mapped and needs none of this.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from qcc.ir.onnx.file.runtime import onnxruntime

LEAST_BYTES = 1 << 16
NATIVE = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


def take_out(graph: ir.Graph, folder: Path, kept: Collection[str]) -> dict[str, np.ndarray]:
    """Replace the large constants that lie in memory by references to no file; the arrays are returned by name.

    Args:
        graph: edited.
        folder: to which its files are relative.
        kept: names of constants that stay.
    """
    taken = {}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None or isinstance(tensor, ir.ExternalTensor) or name in kept:
            continue
        if tensor.nbytes < LEAST_BYTES or tensor.dtype not in NATIVE:
            continue
        taken[name] = np.ascontiguousarray(tensor.numpy())
        shape = ir.Shape(taken[name].shape)
        location = str(folder / "lent")
        value.const_value = ir.ExternalTensor(location, 0, tensor.nbytes, tensor.dtype, shape=shape, name=name)
    return taken


def lend(options: onnxruntime.SessionOptions, arrays: Mapping[str, np.ndarray]) -> None:
    """Let a session read arrays in place; they must live as long as it does."""
    names = list(arrays)
    options.add_external_initializers(names, [onnxruntime.OrtValue.ortvalue_from_numpy(arrays[name]) for name in names])
