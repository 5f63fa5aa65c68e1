"""The model-local functions of domain ``qcc``: decoding packed codes by standard ops that fold when a session starts.

``DequantizeLinear`` is kept out on purpose: runtimes leave it in the graph and decode on every run. Bytes stay bytes
until the last op, so that folding a large table does not multiply it.

One function serves a bit width and symmetry, whatever the block: scales come in a shape that broadcasts over
``blocked``, the codes' shape with its blocks apart. Leading zeros in a shape copy the input's axes, so the same body
decodes a whole weight and a handful of gathered rows.
"""

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.grid import Grid, IntGrid, TableGrid
from qcc.ir.encoding.packing import UNIT
from qcc.ir.onnx.file.domain import function


def decode_name(grid: Grid, operands: int, padded: bool, dtype: ir.DataType) -> str:
    """The function's name; it says all that its body depends on."""
    scaled = ("unscaled", "", "asym")[operands]
    parts = [f"decode_{grid.name}", scaled, "padded" if padded else ""]
    parts.append("" if dtype is ir.DataType.FLOAT else dtype.name.lower())
    return "_".join(part for part in parts if part)


def decode_function(grid: Grid, operands: int, padded: bool, dtype: ir.DataType, opset: int) -> ir.Function:
    """Build the function.

    Its inputs are one array of bytes a plane (lowest bits first), as many ``operands`` as there are of ``scale`` and
    ``zero`` (int8), ``blocked`` and ``shape`` (int64), and, if the codes were padded to whole units, ``units`` (the
    shape before the padding is cut) and ``count`` (codes along its last axis).
    """
    names = [f"plane{position}" for position in range(len(grid.planes))]
    inputs = [*names, *("scale", "zero")[:operands], "blocked", "shape"] + (["units", "count"] if padded else [])
    lines = numbers(grid, padded) + values(operands < 2, dtype, scaled=operands > 0)
    return function(decode_name(grid, operands, padded, dtype), inputs, lines, "weight", opset)


def numbers(grid: Grid, padded: bool = False) -> list[str]:
    """Lines that make ``steps``: the numbers of codes, float32, in shape ``blocked``."""
    if isinstance(grid, IntGrid):
        return [*codes(grid, padded), "steps = Cast <to: int = 1> (codes)"]
    assert isinstance(grid, TableGrid)
    lines = table_of(grid, "numbers")
    widths = grid.planes
    if len(widths) > 1:
        return [
            *lines,
            *codes(grid, padded),
            "index = Cast <to: int = 6> (codes)",
            "steps = Gather <axis: int = 0> (numbers, index)",
        ]
    source = "numbers"
    if widths[0] < 8:  # a byte stands for several numbers at once
        lines += [
            *_table(0, widths[0], 0, 0),
            "codes_of_byte = Cast <to: int = 6> (table0)",
            "numbers_of_byte = Gather <axis: int = 0> (numbers, codes_of_byte)",
        ]
        source = "numbers_of_byte"
    lines += ["index0 = Cast <to: int = 6> (plane0)", f"gathered = Gather <axis: int = 0> ({source}, index0)"]
    if not padded:
        return [*lines, "steps = Reshape (gathered, blocked)"]
    return [*lines, "in_units = Reshape (gathered, units)", *_cut("in_units"), "steps = Reshape (cut, blocked)"]


def table_of(grid: TableGrid, name: str) -> list[str]:
    """A line that makes a constant of a grid's numbers."""
    table = ", ".join(repr(float(number)) for number in np.nan_to_num(grid.table))
    return [f"{name} = Constant <value_floats: floats = [{table}]> ()"]


def _cut(name: str) -> list[str]:
    return [
        "zero64 = Constant <value_ints: ints = [0]> ()",
        "last = Constant <value_ints: ints = [-1]> ()",
        f"cut = Slice ({name}, zero64, count, last)",
    ]


def codes(grid: Grid, padded: bool = False) -> list[str]:
    """Lines that make ``codes``, those of integers less half their range, as int8, in shape ``blocked``."""
    widths = grid.planes
    middle = grid.middle if isinstance(grid, IntGrid) else 0
    target = "units" if padded else "blocked"
    lines, parts, shift = [], [], 0
    for position, width in enumerate(widths):
        last = position == len(widths) - 1
        if width == 8:
            lines += [f"wide = Cast <to: int = 6> (plane{position})", f"half = Constant <value_int: int = {middle}> ()"]
            lines += [
                "half32 = Cast <to: int = 6> (half)",
                "centred = Sub (wide, half32)",
                "gathered0 = Cast <to: int = 3> (centred)",
            ]
        else:
            lines += _table(position, width, shift, middle if last else 0)
            lines.append(f"index{position} = Cast <to: int = 6> (plane{position})")
            lines.append(f"gathered{position} = Gather <axis: int = 0> (table{position}, index{position})")
        lines.append(f"codes{position} = Reshape (gathered{position}, {target})")
        parts.append(f"codes{position}")
        shift += width
    joined = parts[0]
    for position, part in enumerate(parts[1:], 1):
        lines.append(f"joined{position} = BitwiseOr ({joined}, {part})")
        joined = f"joined{position}"
    if padded:
        lines += [*_cut(joined), "codes = Reshape (cut, blocked)"]
    else:
        lines.append(f"codes = Identity ({joined})")
    return lines


def _table(position: int, width: int, shift: int, middle: int) -> list[str]:
    """256 bytes against their ``8 / width`` codes, shifted into place and centred: int8, in two's complement."""
    shifts = ", ".join(str(step) for step in range(0, 8, width))
    p = position
    return [
        f"from{p} = Constant <value_int: int = 0> ()",
        f"to{p} = Constant <value_int: int = 256> ()",
        f"by{p} = Constant <value_int: int = 1> ()",
        f"range{p} = Range (from{p}, to{p}, by{p})",
        f"column{p} = Constant <value_ints: ints = [256, 1]> ()",
        f"bytes{p} = Reshape (range{p}, column{p})",
        f"unsigned{p} = Cast <to: int = 2> (bytes{p})",
        f"shifts{p} = Constant <value_ints: ints = [{shifts}]> ()",
        f"steps{p} = Cast <to: int = 2> (shifts{p})",
        f'shifted{p} = BitShift <direction: string = "RIGHT"> (unsigned{p}, steps{p})',
        f"mask{p} = Constant <value_int: int = {(1 << width) - 1}> ()",
        f"mask8{p} = Cast <to: int = 2> (mask{p})",
        f"masked{p} = BitwiseAnd (shifted{p}, mask8{p})",
        f"weighted{p} = Cast <to: int = 6> (masked{p})",
        f"place{p} = Constant <value_int: int = {1 << shift}> ()",
        f"place32{p} = Cast <to: int = 6> (place{p})",
        f"placed{p} = Mul (weighted{p}, place32{p})",
        f"middle{p} = Constant <value_int: int = {middle}> ()",
        f"middle32{p} = Cast <to: int = 6> (middle{p})",
        f"signed{p} = Sub (placed{p}, middle32{p})",
        f"table{p} = Cast <to: int = 3> (signed{p})",
    ]


def values(symmetric: bool, dtype: ir.DataType, turned: str = "", scaled: bool = True) -> list[str]:
    """Lines that make ``weight`` in shape ``shape`` of ``steps`` and scales, whose names may start with a prefix."""
    lines, found = [], "steps"
    if not symmetric:
        lines += [f"zeros = Cast <to: int = 1> ({turned}zero)", "centred_steps = Sub (steps, zeros)"]
        found = "centred_steps"
    if scaled:
        lines += [f"factors = Cast <to: int = 1> ({turned}scale)", f"values = Mul ({found}, factors)"]
        found = "values"
    if dtype is ir.DataType.FLOAT:
        return [*lines, f"weight = Reshape ({found}, shape)"]
    return [*lines, f"shaped = Reshape ({found}, shape)", f"weight = Cast <to: int = {int(dtype)}> (shaped)"]


def padded_count(count: int) -> int:
    """``count`` filled up to whole units of codes."""
    return -(-count // UNIT) * UNIT
