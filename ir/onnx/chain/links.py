"""Convolutions of rounded values, with all that one op does: the bytes that are read and made, and what is between."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qcc.ir.kernel.chain_op import BYTE, ChainOp, Cut
from qcc.ir.onnx.chain.packed import PackedCodes, packed_of
from qcc.ir.onnx.file.load import array_of

CODE, DECODE = "QuantizeLinear", "DequantizeLinear"
RANK = 4  # images, channels, rows, columns
LEAST_ADDED = 16  # channels of a residual: so many are added at once
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
        groups: of the convolution.
        bias: in the integers of sums, where the graph has none.
    """

    op: ChainOp
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
        link = _link(node, taken) if node.op_type == "Conv" and not node.domain else None
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
    kernel, strides, pads, groups = geometry
    inputs = {"x_scale": read.inputs[1], "x_zero": read.inputs[2], **_named(weight, ("codes", "scale", "zero"))}
    inputs |= {} if packed is None else packed.inputs
    bias = _bias(node, read, weight, shape[0])
    if bias is None:
        return None
    inputs |= bias[0] | _named(coder, ("", "y_scale", "y_zero")) | low_high
    residual = _residual(coder, shape[0], taken)
    cut_sum, other, last = False, None, coder
    if residual is not None:
        cut_sum, decoder, last = residual
        other = decoder.inputs[0]
        inputs |= _named(decoder, ("", "other_scale", "other_zero")) | _named(last, ("", "sum_scale", "sum_zero"))
    op = ChainOp(kernel, strides, pads, groups > 1, packed.bits if packed else BYTE, cut, residual is not None, cut_sum)
    given = {name: value for name, value in inputs.items() if value is not None}
    result, codes = last.outputs[0], read.inputs[0]
    if codes is None or result.is_graph_output():
        return None
    return Link(op, codes, result, last, given, other, groups, bias[1])


def _named(node: ir.Node, names: tuple[str, ...]) -> dict[str, ir.Value | None]:
    return {name: value for name, value in zip(names, node.inputs, strict=False) if name}


def _geometry(
    node: ir.Node, shape: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int], int] | None:
    """Kernel, strides, pads and groups; None of what no kernel does."""
    found = {name: attribute.value for name, attribute in node.attributes.items()}
    high, wide = shape[2:]
    strides, dilations = (tuple(found.get(name) or (1, 1)) for name in ("strides", "dilations"))
    pads, groups = tuple(found.get("pads") or (0, 0, 0, 0)), int(found.get("group", 1))
    whole = groups == 1 or (groups == shape[0] and shape[1] == 1)
    stated = found.get("auto_pad", "NOTSET") in ("", "NOTSET")
    if not whole or not stated or dilations != (1, 1) or min(pads) < 0 or shape[1] * high * wide > MOST_INPUTS:
        return None
    return (high, wide), (strides[0], strides[1]), (pads[0], pads[1], pads[2], pads[3]), groups


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


def _residual(coder: ir.Node, channels: int, taken: set[ir.Node]) -> tuple[bool, ir.Node, ir.Node] | None:
    """What is added to what was rounded, if nothing else reads that: is it cut, its decoder, what rounds the sum."""
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
    same = len(shapes[0] or ()) == RANK and all(shape is not None and shape == shapes[0] for shape in shapes)
    return (cut == "relu", others[0], last) if same else None


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
    """Of bytes in four axes, or what becomes such, with scales and zeros by filters; none of anything else."""
    if len(node.inputs) != 3 or any(_held(value) is None for value in node.inputs[1:]):
        return ()
    codes, axis = _array(node.inputs[0]), node.attributes.get("axis")
    shape = codes.shape if packed is None else packed.shape
    whole = packed is not None or codes.dtype in (np.int8, np.uint8)
    by_filter = _array(node.inputs[1]).shape == _array(node.inputs[2]).shape == shape[:1]
    return shape if len(shape) == RANK and whole and by_filter and axis is not None and axis.as_int() == 0 else ()


def _held(value: ir.Value | None) -> np.ndarray | None:
    return array_of(value) if value is not None and value.is_initializer() else None


def _array(value: ir.Value | None) -> np.ndarray:
    found = _held(value)
    return np.zeros(0) if found is None else found


def _number(value: ir.Value | None) -> float:
    return float(_array(value).reshape(-1)[0])


def _type(value: ir.Value | None) -> ir.DataType | None:
    return None if value is None or value.const_value is None else value.const_value.dtype
