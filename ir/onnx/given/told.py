"""Telling how a weight that comes compressed is stored."""

import re
from math import prod

import numpy as np
import onnx_ir as ir

from qcc.ir.graph.ops import Compressed
from qcc.ir.graph.view import MatrixView
from qcc.ir.onnx.file.load import array_of
from qcc.ir.onnx.given.tensor import Given

DECODE = "DequantizeLinear"
FLOAT = re.compile(r"float(\d)(e\dm\d)\w*")


def compressed(given: Given, view: MatrixView) -> Compressed:
    """How it is stored, for a layer that sees it so."""
    size, last = given.piece.size_bytes, given.piece.nodes[-1]
    if given.product is not None:
        return _of_product(size, given.product)
    if last.op_type == DECODE and last.inputs[0] in given.piece.reads:
        return _of_decode(size, last, view)
    bits = 8 * size / max(prod(view.shape), 1)
    return Compressed(f"{bits:.2f} bits, decoded", max(int(bits), 1), size)


def _of_product(size: int, node: ir.Node) -> Compressed:
    bits, block = node.attributes.get_int("bits", 4) or 4, node.attributes.get_int("block_size", 0)
    return Compressed(f"int{bits} group {block} {'asym' if _input(node, 3) is not None else 'sym'}", bits, size)


def _of_decode(size: int, node: ir.Node, view: MatrixView) -> Compressed:
    codes, scale = node.inputs[0], node.inputs[1]
    assert codes is not None and codes.const_value is not None
    dtype = ir.DataType(codes.const_value.dtype)
    words = [_called(dtype), _blocks(node, scale, view)]
    if "INT" in dtype.name:
        words.append(_symmetry(dtype, _input(node, 2)))
    return Compressed(" ".join(words), dtype.bitwidth, size)


def _blocks(node: ir.Node, scale: ir.Value | None, view: MatrixView) -> str:
    shape = None if scale is None else scale.shape
    if shape is not None and prod(int(one) for one in shape.numpy()) == 1:
        return "tensor"
    axis = (node.attributes.get_int("axis", 1) or 0) % max(len(view.shape), 1)
    block, rows = node.attributes.get_int("block_size", 0), axis in view.out_axes
    if block:
        return f"tile {block}x1" if rows else f"group {block}"
    return "channel" if rows else "tile 0x1"


def _input(node: ir.Node, at: int) -> ir.Value | None:
    return node.inputs[at] if len(node.inputs) > at else None


def _called(dtype: ir.DataType) -> str:
    name = dtype.name.lower()
    found = FLOAT.fullmatch(name)
    return f"fp{found[1]} {found[2]}" if found else name.removeprefix("u")


def _symmetry(dtype: ir.DataType, zero: ir.Value | None) -> str:
    middle = 0 if dtype.name.startswith("INT") else 1 << (dtype.bitwidth - 1)
    array = None if zero is None else array_of(zero)
    even = middle == 0 if array is None else bool((array.astype(np.int32) == middle).all())
    return "sym" if even else "asym"
