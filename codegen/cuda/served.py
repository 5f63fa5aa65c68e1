"""Which ops there are CUDA kernels for."""

from qcc.ir.encoding.blocked import Floats
from qcc.ir.kernel.op import STEPS, LinearOp


def takes(op: LinearOp) -> bool:
    """Products of one weight with codes whose scales are floats, and steps on single values."""
    if op.tile is not None or op.pointwise or op.static or op.is_float or op.beside or len(op.outputs) > 1:
        return False
    scale = op.blocked.scale is not None and isinstance(op.blocked.scales, Floats)
    return scale and not any(STEPS[step].whole for step in op.steps)
