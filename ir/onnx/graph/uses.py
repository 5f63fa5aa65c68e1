"""Which operands each ONNX op uses as weights, and as which matrices."""

from collections.abc import Callable, Iterator

import onnx_ir as ir

from qcc.ir.graph import layers
from qcc.ir.graph.layers import Use
from qcc.ir.onnx.file.domain import DOMAIN
from qcc.ir.onnx.graph.kinds import KINDS

Uses = Iterator[tuple[int, Use | None]]


def shape_of(value: ir.Value | None) -> tuple[int, ...] | None:
    """A value's shape if it is wholly known."""
    if value is None:
        return None
    shape = value.const_value.shape if value.const_value is not None else value.shape
    sizes = [] if shape is None else [size for size in shape if isinstance(size, int)]
    return tuple(sizes) if shape is not None and len(sizes) == len(shape) else None


def rank_of(value: ir.Value | None) -> int | None:
    """A value's rank if it is known."""
    return None if value is None or value.shape is None else len(value.shape)


def has(node: ir.Node, index: int) -> bool:
    """The node has this input, which may be left out."""
    return len(node.inputs) > index and node.inputs[index] is not None


def _matmul(node: ir.Node) -> Uses:
    yield 1, layers.right_operand(shape_of(node.inputs[1]), rank_of(node.inputs[0]))
    yield 0, layers.left_operand(shape_of(node.inputs[0]))


def _gemm(node: ir.Node) -> Uses:
    get, get_int = node.attributes.get_float, node.attributes.get_int
    plain = get("alpha", 1.0) == 1 and (get("beta", 1.0) == 1 or not has(node, 2)) and not get_int("transA", 0)
    left, right = (shape_of(value) for value in node.inputs[:2])
    if right is not None and len(right) == 2:
        yield 1, layers.right_operand(right, 2, bool(get_int("transB", 0)), plain)
    if left is not None and len(left) == 2:
        yield 0, layers.left_operand(left, bool(get_int("transA", 0)))


def _conv(node: ir.Node) -> Uses:
    groups, padding = node.attributes.get_int("group", 1), node.attributes.get_string("auto_pad", "NOTSET")
    moved = set(node.attributes.get_ints("strides", ())) | {1 + pad for pad in node.attributes.get_ints("pads", ())}
    whole = moved <= {1} and padding in ("NOTSET", "VALID")
    yield 1, layers.filters(shape_of(node.inputs[1]), groups, node.op_type == "ConvTranspose", whole)


def _gather(node: ir.Node) -> Uses:
    ids = node.inputs[1]
    dynamic = ids is not None and ids.const_value is None and ids.shape is not None
    if dynamic and node.attributes.get_int("axis", 0) in (0, -2) and not _holds_scales(node.outputs[0]):
        yield 0, layers.table(shape_of(node.inputs[0]))


def _holds_scales(value: ir.Value) -> bool:
    """The value goes into one of our own decoding functions: what is encoded already is no weight."""
    return any(
        node.domain == DOMAIN or (node.op_type in ("Unsqueeze", "Gather") and _holds_scales(node.outputs[0]))
        for node in value.consumers()
    )


def _recurrent(node: ir.Node) -> Uses:
    function = KINDS[node.op_type][1]
    yield 1, layers.gates(shape_of(node.inputs[1]), function)
    if has(node, 2):
        yield 2, layers.gates(shape_of(node.inputs[2]), function)


def _einsum(node: ir.Node) -> Uses:
    terms, result = layers.einsum_terms(node.attributes.get_string("equation", ""))
    if len(terms) != len(node.inputs):
        return
    for index in (1, 0, *range(2, len(terms))):
        others = [term for at, term in enumerate(terms) if at != index]
        yield index, layers.einsum_operand(shape_of(node.inputs[index]), terms[index], others, result)


USES: dict[str, Callable[[ir.Node], Uses]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Gather": _gather,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Einsum": _einsum,
}
BIASED = ("MatMul", "Gemm", "Conv", "ConvTranspose")
"""The ops whose product a bias may be part of."""
