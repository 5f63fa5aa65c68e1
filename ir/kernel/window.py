"""Where the numbers lie that an op reads for each that it makes: a kernel, and how it goes over an image."""

from collections.abc import Sequence
from dataclasses import dataclass

Sizes = tuple[int, ...]
SOLID = {1: (1, 1), 2: (1, 0), 3: (0, 0)}
"""By the number of axes: how many of size 1 stand before and behind them where there are three."""
_SIZES = r"(\d+(?:x\d+)*)"
WORDS = rf"{_SIZES}_stride{_SIZES}_pads{_SIZES}(?:_dilated{_SIZES})?"
"""What `KernelWindow.words` gives, in four groups."""


@dataclass(frozen=True)
class KernelWindow:
    """A kernel over one to three axes; what is left out is 1, and of pads 0.

    Args:
        kernel: its sizes, rows before columns.
        strides: the same.
        pads: at the beginnings of the axes, then at their ends.
        dilations: how far apart the numbers of the kernel lie.
    """

    kernel: Sizes
    strides: Sizes = ()
    pads: Sizes = ()
    dilations: Sizes = ()

    def __post_init__(self) -> None:
        """Fill in what was left out."""
        ones = (1,) * self.axes
        object.__setattr__(self, "strides", self.strides or ones)
        object.__setattr__(self, "pads", self.pads or (0,) * (2 * self.axes))
        object.__setattr__(self, "dilations", self.dilations or ones)

    @property
    def axes(self) -> int:
        """How many."""
        return len(self.kernel)

    @property
    def words(self) -> str:
        """As names of ops have it: ``3x3_stride2x2_pads0x0x1x1``."""
        sizes = [text + _text(one) for text, one in (("", self.kernel), ("stride", self.strides), ("pads", self.pads))]
        dilated = [f"dilated{_text(self.dilations)}"] if set(self.dilations) != {1} else []
        return "_".join(sizes + dilated)

    @property
    def solid(self) -> "KernelWindow":
        """The same over planes, rows and columns: one axis is rows, two are these."""
        before, behind = SOLID[self.axes]

        def filled(sizes: Sizes, least: int) -> Sizes:
            return (least,) * before + sizes + (least,) * behind

        halves = self.pads[: self.axes], self.pads[self.axes :]
        pads = (*filled(halves[0], 0), *filled(halves[1], 0))
        return KernelWindow(filled(self.kernel, 1), filled(self.strides, 1), pads, filled(self.dilations, 1))

    @property
    def attributes(self) -> dict[str, Sizes]:
        """As ops of ONNX have it, without the kernel."""
        return {"strides": self.strides, "pads": self.pads, "dilations": self.dilations}


def window_of(words: Sequence[str | None]) -> KernelWindow | None:
    """The window that stands in a name, by the groups of `WORDS`; None if its sizes do not belong together."""
    kernel, strides, pads, dilations = (tuple(map(int, one.split("x"))) if one else () for one in words)
    axes, known = len(kernel), {len(one) for one in (strides, dilations) if one}
    if axes not in SOLID or known - {axes} or len(pads) != 2 * axes or not all((*kernel, *strides, *dilations)):
        return None
    return KernelWindow(kernel, strides, pads, dilations)


def _text(sizes: Sizes) -> str:
    return "x".join(map(str, sizes))
