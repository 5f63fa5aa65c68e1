"""Which canonical kind and function an ONNX op is. An op that no definition names is opaque, never wrong."""

import onnx_ir as ir

from qcc.ir.graph.functions import kinds
from qcc.ir.graph.ops import Kind

KINDS = kinds(lambda one: one.onnx)
LAYER_FUNCTIONS = {Kind.LINEAR: "linear", Kind.EMBEDDING: "embedding"}
DEFAULT_DOMAINS = ("", "ai.onnx")


def kind_of(node: ir.Node, layer: Kind | None = None) -> tuple[Kind, str]:
    """The kind and function of a node; ``layer`` is the kind that `onnx_layers` tells it to be, if it does."""
    known = KINDS.get(node.op_type if node.domain in DEFAULT_DOMAINS else f"{node.domain}.{node.op_type}")
    if layer is not None:
        return layer, LAYER_FUNCTIONS.get(layer) or (known[1] if known else node.op_type)
    return known or (Kind.OTHER, node.op_type)
