"""The model-local functions of domain ``qcc``: decoding packed codes by standard ops that fold when a session starts.

``DequantizeLinear`` is kept out on purpose: runtimes leave it in the graph and decode on every run. Bytes stay bytes
until the last op, so that folding a large table does not multiply it.

One function serves a bit width and symmetry, whatever the block: scales come in a shape that broadcasts over
``blocked``, the codes' shape with its blocks apart. Leading zeros in a shape copy the input's axes, so the same body
decodes a whole weight and a handful of gathered rows.
"""

from collections.abc import Iterable

import onnx
import onnx.parser
import onnx_ir as ir

from qcc.ir.encoding.packing import UNIT, planes
from qcc.ir.onnx.file.domain import DOMAIN


def decode_name(bits: int, symmetric: bool, padded: bool, dtype: ir.DataType) -> str:
    """The function's name; it says all that its body depends on."""
    parts = [f"decode_int{bits}", "" if symmetric else "asym", "padded" if padded else ""]
    parts.append("" if dtype is ir.DataType.FLOAT else dtype.name.lower())
    return "_".join(part for part in parts if part)


def decode_function(bits: int, symmetric: bool, padded: bool, dtype: ir.DataType, opset: int) -> ir.Function:
    """Build the function.

    Its inputs are one array of bytes a plane (lowest bits first), ``scale``, ``zero`` (int8, asymmetric only),
    ``blocked`` and ``shape`` (int64), and, if the codes were padded to whole units, ``units`` (the shape before the
    padding is cut) and ``count`` (codes along its last axis).
    """
    inputs = [*stored(bits, symmetric), "blocked", "shape"] + (["units", "count"] if padded else [])
    lines = [*codes(bits, padded), *values(symmetric, dtype)]
    return function(decode_name(bits, symmetric, padded, dtype), inputs, lines, "weight", opset)


def function(
    name: str, inputs: Iterable[str], lines: Iterable[str], outputs: str, opset: int, attributes: str = ""
) -> ir.Function:
    """A function of our domain from the lines of its body; outputs and attributes are separated by commas."""
    body = "\n".join(f"  {line}" for line in lines)
    head = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>'
    parameters = f"<{attributes}> " if attributes else ""
    text = f"{head}\n{name} {parameters}({', '.join(inputs)}) => ({outputs})\n{{\n{body}\n}}"
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))


def stored(bits: int, symmetric: bool) -> list[str]:
    """What is stored of a weight, as inputs of a function."""
    return [*(f"plane{position}" for position in range(len(planes(bits)))), "scale", *([] if symmetric else ["zero"])]


def codes(bits: int, padded: bool = False) -> list[str]:
    """Lines that make ``codes``: minus half the range, as int8, in shape ``blocked``."""
    widths = planes(bits)
    middle = 1 << (bits - 1)
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
        lines += ["zero64 = Constant <value_ints: ints = [0]> ()", "last = Constant <value_ints: ints = [-1]> ()"]
        lines += [f"cut = Slice ({joined}, zero64, count, last)", "codes = Reshape (cut, blocked)"]
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


def values(symmetric: bool, dtype: ir.DataType, turned: str = "") -> list[str]:
    """Lines that make ``weight`` in shape ``shape`` of codes and scales, whose names may start with a prefix."""
    lines = [f"steps = Cast <to: int = 1> ({turned}codes)"]
    if not symmetric:
        lines += [f"zeros = Cast <to: int = 1> ({turned}zero)", "centred_steps = Sub (steps, zeros)"]
    lines += [f"factors = Cast <to: int = 1> ({turned}scale)"]
    lines.append(f"values = Mul ({'steps' if symmetric else 'centred_steps'}, factors)")
    if dtype is ir.DataType.FLOAT:
        return [*lines, "weight = Reshape (values, shape)"]
    return [*lines, "shaped = Reshape (values, shape)", f"weight = Cast <to: int = {int(dtype)}> (shaped)"]


def padded_count(count: int) -> int:
    """``count`` filled up to whole units of codes."""
    return -(-count // UNIT) * UNIT
