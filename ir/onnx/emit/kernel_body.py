"""What kernel ops compute, in standard ops: the bodies of their functions.

No shape stands in a body: one function serves all layers of a format and of the same steps, whatever the rank of what
they multiply. Steps are spelled the way that ONNX Runtime knows how to fuse.
"""

import onnx_ir as ir

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.grid import Grid, TableGrid
from qcc.ir.kernel.op import BIAS, STEPS, LinearOp, Tile
from qcc.ir.kernel.sequence_op import SequenceOp
from qcc.ir.onnx.emit.decode import codes, numbers, table_of, values
from qcc.ir.onnx.emit.step_lines import step_lines
from qcc.ir.onnx.file.domain import DOMAIN, function
from qcc.ir.vocabulary.definition import Lines

WHOLE = (8,)  # planes of a code that leave no room for two products in 16 bits
TURNED = "turned_"


def kernel_function(op: LinearOp | SequenceOp, opset: int) -> ir.Function:
    """Build the function; its inputs and outputs are the op's own, its attribute the epsilon of a norm."""
    outputs, attributes = ", ".join(op.outputs), ", ".join(op.attributes)
    if isinstance(op, SequenceOp) or op.beside:
        lines = _in_order(op) if isinstance(op, SequenceOp) else _calls(op)
        return function(op.name, op.inputs, lines, outputs, opset, attributes, ours=True)
    value, operands, steps = "v0", [name for name, _ in op.step_inputs], op.steps
    if op.pointwise:
        first = operands[: steps[:1] == (BIAS,)]  # a convolution adds it itself
        lines = [*_filters(op), f"v0 = Conv ({', '.join(('x', 'filters', *first))})"]
        operands, steps = operands[len(first) :], steps[len(first) :]
    else:
        lines = _integer_product(op) if op.static and op.tile is None else _float_product(op)
    for at, step in enumerate(steps, 1):
        count = len(STEPS[step].operands)
        lines += step_lines(STEPS[step], value, f"v{at}", operands[:count], opset)
        value, operands = f"v{at}", operands[count:]
    lines.append(f"y = Identity ({value})")
    return function(op.name, op.inputs, lines, outputs, opset, attributes)


def _in_order(op: SequenceOp) -> Lines:
    """A call of both products' own functions."""
    one, two = op.members
    count = len(one.inputs)
    epsilon = f"<{', '.join(f'{name}: float = @{name}' for name in two.attributes)}> " if two.attributes else ""
    return [
        f"between = {DOMAIN}.{one.name} ({', '.join(op.inputs[:count])})",
        f"{', '.join(op.outputs)} = {DOMAIN}.{two.name} {epsilon}({', '.join(('between', *op.inputs[count:]))})",
    ]


def _calls(op: LinearOp) -> Lines:
    """A call of each product's own function."""
    members, made, lines = op.members, "", []
    each = len(op.weight_inputs) // len(members)
    vectors, results = (name for name, _ in op.step_inputs), iter(op.outputs)
    for at, one in enumerate(members):
        weight = op.weight_inputs[at * each : (at + 1) * each]
        operands = [made if kind == "tensor" else next(vectors) for _, kind in one.step_inputs]
        made = "between" if op.chained and not at else next(results)
        lines.append(f"{made} = {DOMAIN}.{one.name} ({', '.join(('x', *weight, *operands))})")
    return lines


def _float_product(op: LinearOp) -> Lines:
    if op.tile is not None:
        weight, lines = "turned", _tiled_weight(op, op.tile)
    elif op.is_float:
        weight, lines = _float_weight()
    elif isinstance(op.blocked.grid, TableGrid):
        weight, lines = "turned", [*_rows_weight(op), "turned = Transpose <perm: ints = [1, 0]> (weight)"]
    else:
        weight, lines = _decoded_weight(op)
    return [*lines, *_rounded(op), f"v0 = MatMul ({'rounded' if op.static else 'x'}, {weight})"]


def _rounded(op: LinearOp) -> Lines:
    """What tiles are multiplied with that is rounded by a known step: they have scales of their own, so as floats."""
    if not op.static:
        return []
    return [
        "nought = Constant <value_int: int = 0> ()",
        "middle = Cast <to: int = 3> (nought)",
        "bytes = QuantizeLinear (x, input_scale, middle)",
        "rounded = DequantizeLinear (bytes, input_scale, middle)",
    ]


def _tiled_weight(op: LinearOp, tile: Tile) -> Lines:
    """``turned [in, out]`` of tiles: each by its number from all that are stored, behind one of zeros, in its place."""
    high, wide = tile
    values: str
    lines: Lines
    values, lines = "values", []
    if op.is_float:
        values, lines = "wide", ["wide = Cast <to: int = 1> (weight)"]
    elif isinstance(op.encoding, Blocked):
        values, lines = "weight", _rows_weight(op)
    return [
        *lines,
        f"zero_shape = Constant <value_ints: ints = [1, {high * wide}]> ()",
        "nothing = ConstantOfShape (zero_shape)",
        f"tiles = Concat <axis: int = 0> (nothing, {values})",
        "whole_number = Cast <to: int = 6> (number)",
        "picked = Gather <axis: int = 0> (tiles, whole_number)",
        "counts = Shape (number)",
        f"extents = Constant <value_ints: ints = [{high}, {wide}]> ()",
        "apart = Concat <axis: int = 0> (counts, extents)",
        "blocks = Reshape (picked, apart)",
        "mixed = Transpose <perm: ints = [1, 3, 0, 2]> (blocks)",
        "sizes = Mul (counts, extents)",
        "order = Constant <value_ints: ints = [1, 0]> ()",
        "shape_turned = Gather <axis: int = 0> (sizes, order)",
        "turned = Reshape (mixed, shape_turned)",
    ]


def _integer_product(op: LinearOp) -> Lines:
    """Quantised and dequantised on both sides, which the runtime makes one product of integers.

    Bytes without a sign, around 128, stand for the same numbers as those with one: these the runtime multiplies only
    where no other layer reads the same. The axis in front keeps it from making a ``Gemm`` of a matrix product and its
    bias before, which it then runs in float.
    """
    whole = op.blocked.grid.planes == WHOLE
    zeros = ", zeros" if whole or _has_zero(op) else ""
    lines = [
        "rest = Constant <value_ints: ints = [-1]> ()",
        "rows = Shape <start: int = 0, end: int = 1> (scale)",
        "blocked = Concat <axis: int = 0> (rows, rest)",
        "number = Constant <value_int: int = 128> ()",
        "middle = Cast <to: int = 2> (number)",
        *(_bytes(op) if whole else _signed(op)),
        "flat_scale = Reshape (scale, rest)",
        "steps = Cast <to: int = 1> (flat_scale)",
        f"weight = DequantizeLinear <axis: int = 1> (turned, steps{zeros})",
        "front = Constant <value_ints: ints = [0]> ()",
        "matrices = Unsqueeze (x, front)",
        "rounded = QuantizeLinear (matrices, input_scale, middle)",
        "inputs = DequantizeLinear (rounded, input_scale, middle)",
        "products = MatMul (inputs, weight)",
    ]
    return [*lines, "v0 = Squeeze (products, front)"]


def _signed(op: LinearOp) -> Lines:
    """Codes ``turned`` to ``[in, out]``, and ``zeros``, with a sign.

    A processor with AVX2 alone adds two products with a byte in 16 bits, which those of up to 7 bits fit.
    """
    zeros = ["zeros = Reshape (zero, rest)"] if _has_zero(op) else []
    return [*codes(op.blocked.grid), "turned = Transpose <perm: ints = [1, 0]> (codes)", *zeros]


def _bytes(op: LinearOp) -> Lines:
    """The same of 8 bits, without a sign: what the runtime multiplies exactly on every processor."""
    lines = ["codes = Reshape (plane0, blocked)", "turned = Transpose <perm: ints = [1, 0]> (codes)"]
    if not _has_zero(op):
        return [*lines, "zeros = Expand (middle, rows)"]
    return [
        *lines,
        "flat_zero = Reshape (zero, rest)",
        "wide_zero = Cast <to: int = 6> (flat_zero)",
        "wide_middle = Cast <to: int = 6> (number)",
        "lifted = Add (wide_zero, wide_middle)",
        "zeros = Cast <to: int = 2> (lifted)",
    ]


def _decoded_weight(op: LinearOp) -> tuple[str, Lines]:
    """The codes, turned to ``[groups, in a group, out]`` while they are small: a session keeps all that it folds."""
    shapes = [
        "rest = Constant <value_ints: ints = [-1]> ()",
        "groups = Shape (scale)",
        "blocked = Concat <axis: int = 0> (groups, rest)",
        "rows = Shape <start: int = 0, end: int = 1> (scale)",
        "shape = Concat <axis: int = 0> (rest, rows)",
    ]
    turned = [f"{TURNED}codes = Transpose <perm: ints = [1, 2, 0]> (codes)"]
    for name in ("scale", "zero") if _has_zero(op) else ("scale",):
        turned += [
            f"spread_{name} = Unsqueeze ({name}, rest)",
            f"{TURNED}{name} = Transpose <perm: ints = [1, 2, 0]> (spread_{name})",
        ]
    return "weight", [
        *shapes,
        *codes(op.blocked.grid),
        *turned,
        f"steps = Cast <to: int = 1> ({TURNED}codes)",
        *values(not _has_zero(op), ir.DataType.FLOAT, TURNED),
    ]


def _has_zero(op: LinearOp) -> bool:
    """Zero points are among the weight's parts."""
    return "zero" in op.weight_inputs


def _rows_weight(op: LinearOp) -> Lines:
    """``weight [out, in]`` of codes, as they lie; scales may be looked up, too."""
    scales = op.blocked.scales
    found, lines = "scale", ["rest = Constant <value_ints: ints = [-1]> ()"]
    if isinstance(scales, Blocked):
        found = "scales"
        lines += _looked_up_scales(scales.grid, op.blocked.grid.planes[0], op.group)
    return [
        *lines,
        f"groups = Shape ({found})",
        "blocked = Concat <axis: int = 0> (groups, rest)",
        f"rows = Shape <start: int = 0, end: int = 1> ({found})",
        "shape = Concat <axis: int = 0> (rows, rest)",
        *numbers(op.blocked.grid),
        f"spread_scale = Unsqueeze ({found}, rest)",
        *(["spread_zero = Unsqueeze (zero, rest)"] if _has_zero(op) else []),
        *values(not _has_zero(op), ir.DataType.FLOAT, "spread_"),
    ]


def _looked_up_scales(grid: Grid, width: int, group: int | None) -> Lines:
    """``scales [out, groups]`` of bytes, whose rows are filled up: how many groups there are, the codes tell."""
    assert isinstance(grid, TableGrid)
    per_byte = 8 // width
    count = ["count = Constant <value_ints: ints = [1]> ()"]
    if group is not None:
        count = [
            "bytes = Shape <start: int = 1, end: int = 2> (plane0)",
            f"bytes_of_group = Constant <value_ints: ints = [{group // per_byte}]> ()",
            "count = Div (bytes, bytes_of_group)",
        ]
    return [
        *count,
        *table_of(grid, "scale_numbers"),
        "scale_index = Cast <to: int = 6> (scale)",
        "all_scales = Gather <axis: int = 0> (scale_numbers, scale_index)",
        "scale_start = Constant <value_ints: ints = [0]> ()",
        "scale_axis = Constant <value_ints: ints = [1]> ()",
        "scales = Slice (all_scales, scale_start, count, scale_axis)",
    ]


def _filters(op: LinearOp) -> Lines:
    """The weight as ``[out, in, 1, 1]``."""
    found, lines = ("wide", ["wide = Cast <to: int = 1> (weight)"]) if op.is_float else ("weight", _rows_weight(op))
    return [*lines, "ends = Constant <value_ints: ints = [2, 3]> ()", f"filters = Unsqueeze ({found}, ends)"]


def _float_weight() -> tuple[str, Lines]:
    return "matrix", ["wide = Cast <to: int = 1> (weight)", "matrix = Transpose <perm: ints = [1, 0]> (wide)"]
