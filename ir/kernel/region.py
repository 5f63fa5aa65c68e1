"""What one kernel op takes the place of: a linear layer's product and the steps behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Region:
    """A product, and the ops behind it that become steps of one op (`kernel_op.STEPS`).

    Only values name its borders, which edits leave alone, so a region holds while others are put in place. Every value
    that the op reads is there before ``place``; nothing reads one that it makes before that.

    Args:
        op: the product's op.
        place: a value whose op the kernel op can stand in the place of: the last that reads an operand, or the product.
        result: the value that the op makes.
        steps: names of steps.
        operands: of the steps, in order: names of constants or values; empty for a gain or shift that does nothing.
        epsilon: of a norm.
        kept: the value before the norm where others read that too.
        ops: the ops whose place it takes, in the order in which they run.
    """

    op: str
    place: str
    result: str
    steps: tuple[str, ...] = ()
    operands: tuple[str, ...] = ()
    epsilon: float | None = None
    kept: str = ""
    ops: tuple[str, ...] = ()


NO_REGIONS: Mapping[str, Region] = MappingProxyType({})
