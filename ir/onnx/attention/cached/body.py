"""What an attention over kept rows computes, in standard ops: the body of its function, of opset 18 on.

The heads of queries that share keys stand below each other, so that nothing is repeated for them.
"""

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.cached.rows import BIAS, LEAST, NEAR, TOP
from qcc.ir.kernel.cached_op import CachedOp, RowCode
from qcc.ir.onnx.file.domain import function
from qcc.ir.vocabulary.definition import Lines

FLOAT = 1
NUMBERS = {np.dtype(np.uint8): 2, np.dtype(np.float16): 10, np.dtype(np.float32): FLOAT}


def cached_function(op: CachedOp, opset: int) -> ir.Function:
    """Build the function; its inputs and outputs are the op's own."""
    lines = [
        f"by_heads = Constant <value_ints: ints = [0, 0, {op.heads}, {op.channels}]> ()",
        f"by_kept_heads = Constant <value_ints: ints = [0, 0, {op.kept_heads}, {op.channels}]> ()",
        f"below = Constant <value_ints: ints = [0, {op.kept_heads}, -1, {op.channels}]> ()",
        "nought = Constant <value_float: float = 0.0> ()",
        "one = Constant <value_float: float = 1.0> ()",
        "ends = Constant <value_ints: ints = [-1]> ()",
        *_side("keys", op.keys, op.channels, op.first),
        *_side("values", op.values, op.channels, op.first),
        "q_rows = Reshape (queries, by_heads)",
        "q_heads = Transpose <perm: ints = [0, 2, 1, 3]> (q_rows)",
        "q = Reshape (q_heads, below)",
        "turned = Transpose <perm: ints = [0, 1, 3, 2]> (all_keys)",
        "products = MatMul (q, turned)",
        "stacked = Shape (products)",
        "heads = Shape <start: int = 0, end: int = 3> (q_heads)",
        "columns = Shape <start: int = 3> (products)",
        "apart = Concat <axis: int = 0> (heads, columns)",
        "scores = Reshape (products, apart)",
        "biased = Add (scores, bias)",
        "weights = Softmax <axis: int = -1> (biased)",
        "stacked_weights = Reshape (weights, stacked)",
        "sums = MatMul (stacked_weights, all_values)",
        "q_shape = Shape (q_heads)",
        "y_heads = Reshape (sums, q_shape)",
        "y_rows = Transpose <perm: ints = [0, 2, 1, 3]> (y_heads)",
        "flat = Constant <value_ints: ints = [0, 0, -1]> ()",
        "y = Reshape (y_rows, flat)",
    ]
    return function(op.name, op.inputs, lines, ", ".join(op.outputs), opset)


def _side(name: str, code: RowCode, width: int, first: bool) -> Lines:
    """New rows as codes behind those that were fed, and all of them as floats."""
    lines = [
        f"{name}_rows = Reshape ({name}, by_kept_heads)",
        f"{name}_new = Transpose <perm: ints = [0, 2, 1, 3]> ({name}_rows)",
    ]
    whole = f"{name}_whole" if first else f"all_{name}"
    if code.is_float:
        lines.append(f"present_{name} = Concat <axis: int = 2> (past_{name}, {name}_new)")
        lines.append(f"{whole} = Identity (present_{name})")
    else:
        lines += _encoded(name, code, width)
        lines.append(f"present_{name} = Concat <axis: int = 2> (past_{name}, {name}_codes)")
        lines += _decoded(name, code, whole)
    return lines + ([f"all_{name} = Concat <axis: int = 2> (first_{name}, {whole})"] if first else [])


def _encoded(name: str, code: RowCode, width: int) -> Lines:
    lines, numbers, least = list[str](), f"{name}_new", -(1 << (code.bits - 1))
    if code.group:
        lines += [
            f"{name}_apart = Constant <value_ints: ints = [0, 0, 0, {width // code.group}, {code.group}]> ()",
            f"{name}_joined = Constant <value_ints: ints = [0, 0, 0, {width}]> ()",
            f"{name}_groups = Reshape ({numbers}, {name}_apart)",
            f"{name}_sizes = Abs ({name}_groups)",
            f"{name}_largest = ReduceMax <keepdims: int = 1> ({name}_sizes, ends)",
            f"{name}_small = Constant <value_float: float = {LEAST:.9e}> ()",
            f"{name}_top = Max ({name}_largest, {name}_small)",
            *_scale(name, code, width),
            f"present_{name}_scale = Concat <axis: int = 2> (past_{name}_scale, {name}_scale)",
            f"{name}_divided = Div ({name}_groups, {name}_factor)",
            f"{name}_numbers = Reshape ({name}_divided, {name}_joined)",
        ]
        numbers = f"{name}_numbers"
    low = least + bool(code.group)
    if code.bits == 8:
        if low != least:
            lines += [
                f"{name}_low = Constant <value_float: float = {low:.1f}> ()",
                f"{name}_cut = Max ({numbers}, {name}_low)",
            ]
            numbers = f"{name}_cut"
        lines += [
            f"{name}_zero = Cast <to: int = 3> (nought)",
            f"{name}_codes = QuantizeLinear ({numbers}, one, {name}_zero)",
        ]
        return lines
    return [
        *lines,
        f"{name}_middle = Constant <value_float: float = {-least:.1f}> ()",
        f"{name}_low = Constant <value_float: float = {low - least:.1f}> ()",
        f"{name}_high = Constant <value_float: float = 15.0> ()",
        f"{name}_sixteen = Constant <value_float: float = 16.0> ()",
        f"{name}_up = Add ({numbers}, {name}_middle)",
        f"{name}_round = Round ({name}_up)",
        f"{name}_cut = Clip ({name}_round, {name}_low, {name}_high)",
        f"{name}_first, {name}_second = Split <axis: int = -1, num_outputs: int = 2> ({name}_cut)",
        f"{name}_above = Mul ({name}_second, {name}_sixteen)",
        f"{name}_both = Add ({name}_first, {name}_above)",
        f"{name}_codes = Cast <to: int = 2> ({name}_both)",
    ]


def _scale(name: str, code: RowCode, width: int) -> Lines:
    """The scale of each group, and as a factor ``[.., groups, 1]``."""
    if code.scale == "e8m0":
        lines = [
            f"{name}_per_power = Constant <value_float: float = {1 / np.log(2):.9e}> ()",
            f"{name}_near = Constant <value_float: float = {NEAR:.9e}> ()",
            f"{name}_base = Constant <value_float: float = {BIAS - (code.bits - 2):.1f}> ()",
            f"{name}_last = Constant <value_float: float = {TOP:.1f}> ()",
            f"{name}_log = Log ({name}_top)",
            f"{name}_power = Mul ({name}_log, {name}_per_power)",
            f"{name}_nearly = Add ({name}_power, {name}_near)",
            f"{name}_floor = Floor ({name}_nearly)",
            f"{name}_byte = Add ({name}_floor, {name}_base)",
            f"{name}_bounded = Clip ({name}_byte, nought, {name}_last)",
            f"{name}_kept = Cast <to: int = 2> ({name}_bounded)",
        ]
    else:
        least = float(np.finfo(code.scale_dtype).tiny)
        lines = [
            f"{name}_highest = Constant <value_float: float = {(1 << (code.bits - 1)) - 1:.1f}> ()",
            f"{name}_tiny = Constant <value_float: float = {least:.9e}> ()",
            f"{name}_step = Div ({name}_top, {name}_highest)",
            f"{name}_bounded = Max ({name}_step, {name}_tiny)",
            f"{name}_kept = Cast <to: int = {NUMBERS[code.scale_dtype]}> ({name}_bounded)",
        ]
    return [
        *lines,
        *_factor(code, f"{name}_kept", f"{name}_factor"),
        f"{name}_scales = Constant <value_ints: ints = [0, 0, 0, {width // code.group}]> ()",
        f"{name}_scale = Reshape ({name}_kept, {name}_scales)",
    ]


def _factor(code: RowCode, scale: str, factor: str) -> Lines:
    """Scales as floats."""
    lines = [f"{factor}_number = Cast <to: int = {FLOAT}> ({scale})"]
    if code.scale != "e8m0":
        return [*lines, f"{factor} = Identity ({factor}_number)"]
    return [
        *lines,
        f"{factor}_bias = Constant <value_float: float = {float(BIAS):.1f}> ()",
        f"{factor}_two = Constant <value_float: float = 2.0> ()",
        f"{factor}_power = Sub ({factor}_number, {factor}_bias)",
        f"{factor} = Pow ({factor}_two, {factor}_power)",
    ]


def _decoded(name: str, code: RowCode, out: str) -> Lines:
    numbers = f"{name}_floats"
    if code.bits == 8:
        lines = [f"{numbers} = Cast <to: int = {FLOAT}> (present_{name})"]
    else:
        lines = [
            f"{name}_mask_whole = Constant <value_int: int = 15> ()",
            f"{name}_mask = Cast <to: int = 2> ({name}_mask_whole)",
            f"{name}_shift_whole = Constant <value_int: int = 4> ()",
            f"{name}_shift = Cast <to: int = 2> ({name}_shift_whole)",
            f"{name}_lower = BitwiseAnd (present_{name}, {name}_mask)",
            f'{name}_upper = BitShift <direction: string = "RIGHT"> (present_{name}, {name}_shift)',
            f"{name}_bytes = Concat <axis: int = -1> ({name}_lower, {name}_upper)",
            f"{name}_from_zero = Cast <to: int = {FLOAT}> ({name}_bytes)",
            f"{numbers} = Sub ({name}_from_zero, {name}_middle)",
        ]
    if not code.group:
        return [*lines, f"{out} = Identity ({numbers})"]
    return [
        *lines,
        f"{name}_all_apart = Reshape ({numbers}, {name}_apart)",
        *_factor(code, f"present_{name}_scale", f"{name}_all_factors"),
        f"{name}_last_axis = Unsqueeze ({name}_all_factors, ends)",
        f"{name}_scaled = Mul ({name}_all_apart, {name}_last_axis)",
        f"{out} = Reshape ({name}_scaled, {name}_joined)",
    ]
