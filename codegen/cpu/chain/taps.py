"""What a depthwise convolution's function is written for."""

from dataclasses import dataclass

from qcc.ir.kernel.chain_op import ChainOp


@dataclass(frozen=True)
class Taps:
    """A kernel: its rows, of all planes, and its columns, their stride, and how far apart they lie."""

    high: int
    wide: int
    across: int
    apart: int

    @property
    def words(self) -> str:
        """As names of functions have it."""
        return f"{self.high}x{self.wide}_stride{self.across}_apart{self.apart}"


def taps_of(op: ChainOp) -> Taps:
    """Those of an op."""
    solid = op.window.solid
    deep, high, wide = solid.kernel
    return Taps(deep * high, wide, solid.strides[-1], solid.dilations[-1])
