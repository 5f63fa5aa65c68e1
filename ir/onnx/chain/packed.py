"""Weights of few bits, as the writer of integers packs them: planes of codes, which a session makes bytes."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.packing import planes
from qcc.ir.kernel.chain_op import SPREAD
from qcc.ir.onnx.emit.decode import decode_name
from qcc.ir.onnx.file.load import array_of

NAMES = {
    decode_name(IntGrid(bits), 0, padded, ir.DataType.FLOAT): bits
    for bits in range(2, SPREAD)
    for padded in (False, True)
}
"""The functions that look up the numbers of codes, and the codes' bits."""


@dataclass(frozen=True)
class PackedCodes:
    """Codes that are packed.

    Args:
        bits: of a code.
        shape: of the weight.
        inputs: the planes and the shape, by their names as inputs of an op.
    """

    bits: int
    shape: tuple[int, ...]
    inputs: Mapping[str, ir.Value | None]


def packed_of(value: ir.Value | None) -> PackedCodes | None:
    """What bytes are made of, if that is planes of codes: ``Cast(Mul(decode(planes, shape), spread))``."""
    cast = _maker(value, "Cast")
    laid = _maker(cast.inputs[0], "Mul") if cast is not None else None
    call = laid.inputs[0].producer() if laid is not None and laid.inputs[0] is not None else None
    bits = NAMES.get(call.op_type) if call is not None else None
    if call is None or laid is None or bits is None or value is None or value.dtype is not ir.DataType.INT8:
        return None
    count = len(planes(bits))
    apart, shape = (None if one is None else array_of(one) for one in (laid.inputs[1], call.inputs[count]))
    held = [one is not None and one.is_initializer() for one in call.inputs[: count + 1]]
    if apart is None or apart.shape or apart != 1 << SPREAD - bits or shape is None or not all(held):
        return None
    names = (*(f"plane{at}" for at in range(count)), "shape")
    inputs = dict(zip(names, call.inputs, strict=False))
    return PackedCodes(bits, tuple(int(size) for size in shape), inputs)


def _maker(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """What makes a value, if it is such an op."""
    made = None if value is None else value.producer()
    return made if made is not None and made.op_type == op_type and not made.domain else None
