"""What convolutions and pools of bytes compute, in standard ops: rounded values decoded, convolved, and rounded again.

The runtime makes integers of that, and turns cancel where ops of a chain meet, so a chain without a library takes the
time of the graph that it was made of.
"""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from qcc.ir.kernel.chain_op import SPREAD, ChainOp
from qcc.ir.kernel.pool_op import PoolOp
from qcc.ir.onnx.emit.decode import numbers
from qcc.ir.onnx.file.domain import function
from qcc.ir.vocabulary.definition import Lines


def chain_function(op: ChainOp, opset: int) -> ir.Function:
    """Build the function; its inputs and outputs are the op's own, its attribute the groups of a depthwise one."""
    how = [*_ints(op.window.attributes), f"group: int = {'@group' if op.depthwise else op.groups}"]
    first, last = (_ints({"perm": order})[0] for order in orders(op.window.axes))
    lines = [
        f"turned = Transpose <{first}> (x)",
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
            f"turned_other = Transpose <{first}> (other)",
            "theirs = DequantizeLinear (turned_other, other_scale, other_zero)",
            f"together = Add ({'theirs, own' if op.last else 'own, theirs'})",
            *_cut("total", "together", "relu" if op.cut_sum else ""),
            "summed = QuantizeLinear (total, sum_scale, sum_zero)",
        ]
    lines += [f"y = Transpose <{last}> ({'summed' if op.adds else 'rounded'})"]
    return function(op.name, op.inputs, lines, "y", opset, "group" if op.depthwise else "")


def pool_function(op: PoolOp, opset: int) -> ir.Function:
    """The same of a pool."""
    first, last = (_ints({"perm": order})[0] for order in orders(op.axes))
    window = [] if op.window is None else _ints({"kernel_shape": op.window.kernel, **op.window.attributes})
    if op.pooled == "max":
        lines = [f"pooled = MaxPool <{', '.join(window)}> (turned)"]
    else:
        # dilations of 1 are left out: they came with a later version of the op
        window = [one for one in window if not one.startswith("dilations")]
        how = f"AveragePool <{', '.join([*window, 'count_include_pad: int = 1'])}>" if window else "GlobalAveragePool"
        lines = [
            "read = DequantizeLinear (turned, x_scale, x_zero)",
            f"mean = {how} (read)",
            "pooled = QuantizeLinear (mean, y_scale, y_zero)",
        ]
    lines = [f"turned = Transpose <{first}> (x)", *lines, f"y = Transpose <{last}> (pooled)"]
    return function(op.name, op.inputs, lines, "y", opset)


def orders(axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the axes of a value with channels last, as it has them second, and the other way round."""
    between = range(1, 1 + axes)
    return (0, 1 + axes, *between), (0, *(at + 1 for at in between), 1)


def _ints(attributes: Mapping[str, Sequence[int]]) -> list[str]:
    """Attributes as the text of a body has them."""
    return [f"{name}: ints = [{', '.join(map(str, sizes))}]" for name, sizes in attributes.items()]


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
