"""What the Graph face calls an ONNX op, and a value. An op that no definition names is opaque, never wrong."""

import numpy as np
import onnx_ir as ir

from qcc.ir.graph.functions import kinds
from qcc.ir.graph.ops import Kind, Value

KINDS = kinds(lambda one: one.onnx)
LAYER_FUNCTIONS = {Kind.LINEAR: "linear", Kind.EMBEDDING: "embedding"}
DEFAULT_DOMAINS = ("", "ai.onnx")


def kind_of(node: ir.Node, layer: Kind | None = None) -> tuple[Kind, str]:
    """The kind and function of a node; ``layer`` is the kind that `onnx_layers` tells it to be, if it does."""
    known = KINDS.get(node.op_type if node.domain in DEFAULT_DOMAINS else f"{node.domain}.{node.op_type}")
    if layer is not None:
        return layer, LAYER_FUNCTIONS.get(layer) or (known[1] if known else node.op_type)
    return known or (Kind.OTHER, node.op_type)


def value_of(value: ir.Value) -> Value:
    """A value with its type, as far as it is known."""
    container = _container(value.type)
    shape = None if container else value.shape
    sizes = None if shape is None else tuple(size if isinstance(size, int) else size.value for size in shape)
    dtype = "" if value.dtype is None or value.dtype is ir.DataType.UNDEFINED else _dtype(value.dtype)
    return Value(value.name or "", sizes, dtype, container)


def _container(found: ir.TypeProtocol | None) -> str:
    kinds = {"sequence": ir.SequenceType, "optional": ir.OptionalType}
    return next((name for name, kind in kinds.items() if isinstance(found, kind)), "")


def _dtype(dtype: ir.DataType) -> str:
    return "string" if dtype is ir.DataType.STRING else np.dtype(dtype.numpy()).name
