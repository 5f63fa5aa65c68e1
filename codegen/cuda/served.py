"""Which ops there are CUDA kernels for."""

from qcc.codegen.tir.codes import codes_of
from qcc.ir.encoding.blocked import Floats
from qcc.ir.kernel.op import STEPS, LinearOp


def takes(op: LinearOp) -> bool:
    """Products of one weight: integers, small tables and floats; scales that are floats; steps on single values."""
    if op.tile is not None or op.pointwise or op.static or op.is_float or op.beside or len(op.outputs) > 1:
        return False
    codes, scale = codes_of(op.encoding), op.blocked.scale is not None and isinstance(op.blocked.scales, Floats)
    return scale and (codes.fits or codes.small is not None) and not any(STEPS[step].whole for step in op.steps)
