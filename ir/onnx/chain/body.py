"""What a convolution of bytes computes, in standard ops: rounded values decoded, convolved, and rounded again.

The runtime makes integers of that, and turns cancel where ops of a chain meet, so a chain without a library takes the
time of the graph that it was made of.
"""

import onnx_ir as ir

from qcc.ir.kernel.chain_op import SPREAD, ChainOp
from qcc.ir.onnx.emit.decode import numbers
from qcc.ir.onnx.file.domain import function
from qcc.ir.vocabulary.definition import Lines

FIRST, LAST = "perm: ints = [0, 3, 1, 2]", "perm: ints = [0, 2, 3, 1]"


def chain_function(op: ChainOp, opset: int) -> ir.Function:
    """Build the function; its inputs and outputs are the op's own, its attribute the groups of a depthwise one."""
    how = [
        f"{name}: ints = [{', '.join(map(str, sizes))}]" for name, sizes in (("strides", op.strides), ("pads", op.pads))
    ]
    how += ["group: int = @group"] if op.depthwise else []
    lines = [
        f"turned = Transpose <{FIRST}> (x)",
        "read = DequantizeLinear (turned, x_scale, x_zero)",
        *_unpacked(op),
        f"weight = DequantizeLinear <axis: int = 0> ({'spread' if op.packed else 'codes'}, scale, zero)",
        "whole_bias = DequantizeLinear <axis: int = 0> (bias, bias_scale)",
        f"sums = Conv <{', '.join(how)}> (read, weight, whole_bias)",
        *_cut("made", "sums", op.cut),
        "rounded = QuantizeLinear (made, y_scale, y_zero)",
    ]
    if op.adds:
        lines += [
            "own = DequantizeLinear (rounded, y_scale, y_zero)",
            f"turned_other = Transpose <{FIRST}> (other)",
            "theirs = DequantizeLinear (turned_other, other_scale, other_zero)",
            "together = Add (own, theirs)",
            *_cut("total", "together", "relu" if op.cut_sum else ""),
            "summed = QuantizeLinear (total, sum_scale, sum_zero)",
        ]
    lines += [f"y = Transpose <{LAST}> ({'summed' if op.adds else 'rounded'})"]
    return function(op.name, op.inputs, lines, "y", opset, "group" if op.depthwise else "")


def _unpacked(op: ChainOp) -> Lines:
    """Lines that make ``spread``, the numbers of packed codes in bytes; standard ops, which fold."""
    if not op.packed:
        return []
    return [
        "units = Constant <value_ints: ints = [-1]> ()",
        "count = ReduceProd <keepdims: int = 1> (shape)",
        "blocked = Identity (shape)",
        *numbers(op.grid, padded=True),
        f"apart = Constant <value_float: float = {float(1 << SPREAD - op.bits)}> ()",
        "laid = Mul (steps, apart)",
        "spread = Cast <to: int = 3> (laid)",
    ]


def _cut(result: str, value: str, cut: str) -> Lines:
    given = {"relu": f"Relu ({value})", "clip": f"Clip ({value}, low, high)"}
    return [f"{result} = {given.get(cut, f'Identity ({value})')}"]
