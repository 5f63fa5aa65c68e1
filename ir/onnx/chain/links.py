"""Convolutions and pools of rounded values, with all that one op does: what is read and made, and what is between."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from qcc.ir.kernel.chain_op import BYTE, ChainOp, Cut
from qcc.ir.kernel.pool_op import SCALES, Pooled, PoolOp
from qcc.ir.kernel.window import KernelWindow
from qcc.ir.onnx.chain.packed import PackedCodes, packed_of
from qcc.ir.onnx.file.load import array_of

CODE, DECODE = "QuantizeLinear", "DequantizeLinear"
RANKS = (3, 4, 5)  # images, channels, and up to three axes
LEAST_ADDED = 16  # channels of a residual: so many are added at once
POOLS: dict[str, tuple[Pooled, bool]] = {
    "MaxPool": ("max", False),
    "AveragePool": ("mean", False),
    "GlobalAveragePool": ("mean", True),
}
"""What is taken of a window, and whether that is all of the image."""
CLOSE = 1e-5  # of a scale: two float32 multiplied
MOST_INPUTS = 1 << 15  # of a filter, whose products fit 32 bits with a bias of half of them


@dataclass(frozen=True)
class Link:
    """What an op takes the place of.

    Args:
        op: the op.
        read: the bytes that are convolved, channels second.
        result: the bytes that are made.
        place: the node behind which all is there.
        inputs: the op's other inputs, by name, but for ``other``.
        other: the bytes of a residual.
        groups: of a depthwise convolution; else 0.
        bias: in the integers of sums, where the graph has none.
    """

    op: ChainOp | PoolOp
    read: ir.Value
    result: ir.Value
    place: ir.Node
    inputs: dict[str, ir.Value]
    other: ir.Value | None
    groups: int
    bias: tuple[np.ndarray, np.ndarray] | None


def links(graph: ir.Graph) -> Iterator[Link]:
    """All of a graph, in its order; each residual is added by one convolution alone."""
    taken: set[ir.Node] = set()
    for node in graph:
        link = None if node.domain else _link(node, taken) if node.op_type == "Conv" else _pool(node)
        if link is not None:
            taken.add(link.place)
            yield link


def _link(node: ir.Node, taken: set[ir.Node]) -> Link | None:
    read, weight = (_decoded(node.inputs[at]) for at in (0, 1))
    if read is None or weight is None or not _is_bytes(read):
        return None
    packed = packed_of(weight.inputs[0])
    shape = _weight_shape(weight, packed)
    if not shape:
        return None
    geometry = _geometry(node, shape)
    cut, low_high, coder = _rounded(node.outputs[0])
    if geometry is None or coder is None:
        return None
    window, groups = geometry
    depthwise = groups > 1 and groups == shape[0] and shape[1] == 1
    inputs = {"x_scale": read.inputs[1], "x_zero": read.inputs[2], **_named(weight, ("codes", "scale", "zero"))}
    inputs |= {} if packed is None else packed.inputs
    bias = _bias(node, read, weight, shape[0])
    if bias is None:
        return None
    inputs |= bias[0] | _named(coder, ("", "y_scale", "y_zero")) | low_high
    residual = None if depthwise else _residual(coder, shape[0], taken)  # no kernel of filters a channel adds one
    cut_sum, second, other, last = False, False, None, coder
    if residual is not None:
        cut_sum, second, decoder, last = residual
        other = decoder.inputs[0]
        inputs |= _named(decoder, ("", "other_scale", "other_zero")) | _named(last, ("", "sum_scale", "sum_zero"))
    bits = packed.bits if packed else BYTE
    op = ChainOp(window, depthwise, 1 if depthwise else groups, bits, cut, residual is not None, second, cut_sum)
    given = {name: value for name, value in inputs.items() if value is not None}
    result, codes = last.outputs[0], read.inputs[0]
    if codes is None or result.is_graph_output():
        return None
    return Link(op, codes, result, last, given, other, groups if depthwise else 0, bias[1])


def _pool(node: ir.Node) -> Link | None:
    """A pool of bytes; one of largest numbers keeps their step."""
    read = _decoded(node.inputs[0]) if node.op_type in POOLS else None
    coder = _only(node.outputs[0]) if read is not None and len(node.outputs) == 1 else None
    if read is None or not _is_bytes(read) or coder is None or coder.op_type != CODE or not _is_bytes(coder):
        return None
    result, codes, shape = coder.outputs[0], read.inputs[0], node.outputs[0].shape
    if codes is None or shape is None or len(shape) not in RANKS or result.is_graph_output():
        return None
    pooled, whole = POOLS[node.op_type]
    window = None if whole else _pool_window(node, pooled)
    moved = all(_number(one) == _number(two) for one, two in zip(read.inputs[1:], coder.inputs[1:], strict=True))
    if (window is None and not whole) or (pooled == "max" and not moved):
        return None
    scales = dict(zip(SCALES, (*read.inputs[1:], *coder.inputs[1:]), strict=True)) if pooled == "mean" else {}
    given = {name: value for name, value in scales.items() if value is not None}
    return Link(PoolOp(pooled, window, len(shape) - 2), codes, result, coder, given, None, 0, None)


def _pool_window(node: ir.Node, pooled: Pooled) -> KernelWindow | None:
    """The window of a pool; None of what no kernel does, which is to count less than all of it for a mean."""
    found = {name: attribute.value for name, attribute in node.attributes.items()}
    given = {name: tuple(found.get(name) or ()) for name in ("strides", "pads", "dilations")}
    window = KernelWindow(tuple(found["kernel_shape"]), **given)
    stated = found.get("auto_pad", "NOTSET") in ("", "NOTSET") and not found.get("ceil_mode", 0)
    whole = set(window.dilations) == {1} and (found.get("count_include_pad", 0) or not any(window.pads))
    return window if stated and min(window.pads) >= 0 and (pooled == "max" or whole) else None


def _named(node: ir.Node, names: tuple[str, ...]) -> dict[str, ir.Value | None]:
    return {name: value for name, value in zip(names, node.inputs, strict=False) if name}


def _geometry(node: ir.Node, shape: tuple[int, ...]) -> tuple[KernelWindow, int] | None:
    """The window and the groups; None of what no kernel does."""
    found = {name: attribute.value for name, attribute in node.attributes.items()}
    given = {name: tuple(found.get(name) or ()) for name in ("strides", "pads", "dilations")}
    stated = found.get("auto_pad", "NOTSET") in ("", "NOTSET")
    if not stated or min(given["pads"], default=0) < 0 or prod(shape[1:]) > MOST_INPUTS:
        return None
    return KernelWindow(shape[2:], **given), int(found.get("group", 1))


def _bias(
    node: ir.Node, read: ir.Node, weight: ir.Node, count: int
) -> tuple[dict[str, ir.Value | None], tuple[np.ndarray, np.ndarray] | None] | None:
    """The bias's inputs, or the numbers of one that adds nothing; None where it is none of the sums'."""
    steps = np.float32(_number(read.inputs[1])) * _array(weight.inputs[1]).astype(np.float32)
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return {}, (np.zeros(count, np.int32), steps)
    decoder = _decoded(node.inputs[2])
    if decoder is None or _type(decoder.inputs[0]) is not ir.DataType.INT32 or _array(decoder.inputs[0]).size != count:
        return None
    scale = _array(decoder.inputs[1])
    if scale.shape != steps.shape or not np.allclose(scale, steps, rtol=CLOSE, atol=0):
        return None
    return _named(decoder, ("bias", "bias_scale")), None


def _rounded(value: ir.Value) -> tuple[Cut, dict[str, ir.Value | None], ir.Node | None]:
    """What a value is cut off at, and the node that rounds it, if it alone reads it."""
    reader = _only(value)
    if reader is None or reader.op_type == CODE:
        return "", {}, reader if reader is not None and _is_bytes(reader) else None
    coder = _only(reader.outputs[0]) if reader.op_type in ("Relu", "Clip") else None
    if coder is None or coder.op_type != CODE or not _is_bytes(coder):
        return "", {}, None
    if reader.op_type == "Relu":
        return "relu", {}, coder
    bounds = _named(reader, ("", "low", "high"))
    known = len(bounds) == 2 and all(one is not None and _held(one) is not None for one in bounds.values())
    return "clip", bounds, coder if known else None


def _residual(coder: ir.Node, channels: int, taken: set[ir.Node]) -> tuple[bool, bool, ir.Node, ir.Node] | None:
    """What is added to what was rounded, if nothing else reads that: is the sum cut, does it stand before what was
    rounded, its decoder, what rounds the sum.
    """
    decoder = _only(coder.outputs[0])
    adder = _only(decoder.outputs[0]) if decoder is not None and decoder.op_type == DECODE else None
    if decoder is None or adder is None or adder.op_type != "Add" or channels < LEAST_ADDED:
        return None
    others = [_decoded(value) for value in adder.inputs if value is not decoder.outputs[0]]
    cut, _, last = _rounded(adder.outputs[0])
    if (
        len(others) != 1
        or others[0] is None
        or not _is_bytes(others[0])
        or last is None
        or last in taken
        or cut == "clip"
    ):
        return None
    shapes = [value.shape for value in (*adder.inputs, adder.outputs[0]) if value is not None]
    same = len(shapes[0] or ()) in RANKS and all(shape is not None and shape == shapes[0] for shape in shapes)
    return (cut == "relu", adder.inputs[1] is decoder.outputs[0], others[0], last) if same else None


def _only(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, if one alone does."""
    uses = list(value.uses())
    return uses[0][0] if len(uses) == 1 and not value.is_graph_output() else None


def _decoded(value: ir.Value | None) -> ir.Node | None:
    maker = None if value is None else value.producer()
    return maker if maker is not None and maker.op_type == DECODE and len(maker.inputs) > 1 else None


def _is_bytes(node: ir.Node) -> bool:
    """It codes or decodes with one step, known, and bytes without a sign."""
    if len(node.inputs) != 3 or any(_held(value) is None for value in node.inputs[1:]):
        return False
    zero = node.inputs[2]
    return _array(node.inputs[1]).shape == () and _array(zero).shape == () and _type(zero) is ir.DataType.UINT8


def _weight_shape(node: ir.Node, packed: PackedCodes | None) -> tuple[int, ...]:
    """Of bytes in three to five axes, or what becomes such, with scales and zeros by filters; none of anything else."""
    if len(node.inputs) != 3 or any(_held(value) is None for value in node.inputs[1:]):
        return ()
    codes, axis = _array(node.inputs[0]), node.attributes.get("axis")
    shape = codes.shape if packed is None else packed.shape
    whole = packed is not None or codes.dtype in (np.int8, np.uint8)
    by_filter = _array(node.inputs[1]).shape == _array(node.inputs[2]).shape == shape[:1]
    return shape if len(shape) in RANKS and whole and by_filter and axis is not None and axis.as_int() == 0 else ()


def _held(value: ir.Value | None) -> np.ndarray | None:
    return array_of(value) if value is not None and value.is_initializer() else None


def _array(value: ir.Value | None) -> np.ndarray:
    found = _held(value)
    return np.zeros(0) if found is None else found


def _number(value: ir.Value | None) -> float:
    return float(_array(value).reshape(-1)[0])


def _type(value: ir.Value | None) -> ir.DataType | None:
    return None if value is None or value.const_value is None else value.const_value.dtype
