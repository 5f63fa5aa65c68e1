"""Convolutions of bytes that hand bytes on, named by all that they do.

``qconv3x3_stride2x2_pads0x0x1x1_depthwise_clip`` takes bytes with channels last, and gives such; between them it is
what the runtime has for rounded values: a convolution, what it is cut off at, and rounding. So a chain of them needs
its values in another order only where it begins and ends.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

import numpy as np

from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.packing import UNIT, pack
from qcc.ir.kernel.library_op import LibraryOp
from qcc.ir.kernel.window import WORDS, KernelWindow, window_of

Cut = Literal["", "relu", "clip"]
_NAME = re.compile(
    rf"qconv{WORDS}(_depthwise)?(?:_groups(\d+))?(?:_int([2-6]))?(?:_(relu|clip))?(_add(_last)?(_relu)?)?", re.ASCII
)
BYTE, SPREAD = 8, 7  # bits of codes that lie in bytes, and of those that fewer are laid apart to
MADE, OTHER, SUM = ("y_scale", "y_zero"), ("other", "other_scale", "other_zero"), ("sum_scale", "sum_zero")


@dataclass(frozen=True)
class ChainOp(LibraryOp):
    """``y [n, rows, columns, out] = round(cut(conv(x [n, rows, columns, in])))``, all in bytes without a sign.

    There are one to three axes between images and channels. Inputs are ``x`` with its ``x_scale`` and ``x_zero``;
    ``codes [out, in / groups, high, wide]``, bytes of either kind, with
    a ``scale`` and a ``zero`` a filter; the ``bias`` in the integers of the sums, and its ``bias_scale``; ``y_scale``
    and ``y_zero``; the bounds ``low`` and ``high`` of a clip; and a residual ``other``, its step and zero, and those
    of the sum. Codes of fewer bits are planes of all in that order, ``plane0``, ``plane1`` and on, and their ``shape``;
    their numbers are multiplied by ``2 ** (7 - bits)``.

    Args:
        window: what a filter sees.
        depthwise: a filter a channel.
        groups: of channels, where there are several, and not one for each channel.
        bits: of the codes: 8 for bytes, fewer where they are packed.
        cut: before rounding.
        adds: what was rounded is added to ``other``, and rounded again.
        last: it is the second operand of that sum, which the runtime rounds otherwise.
        cut_sum: what is below 0 of that sum is cut off.
    """

    counted: ClassVar[tuple[str, str]] = ("convolution", "hand on bytes in kernels of ours, channels last")

    window: KernelWindow
    depthwise: bool = False
    groups: int = 1
    bits: int = BYTE
    cut: Cut = ""
    adds: bool = False
    last: bool = False
    cut_sum: bool = False

    @property
    def name(self) -> str:
        """The op's name in domain ``qcc``."""
        words = [f"qconv{self.window.words}"] + ["depthwise"] * self.depthwise
        words += [f"groups{self.groups}"] * (self.groups > 1) + [f"int{self.bits}"] * self.packed
        words += [self.cut] * bool(self.cut) + ["add"] * self.adds + ["last"] * self.last + ["relu"] * self.cut_sum
        return "_".join(words)

    @property
    def axes(self) -> int:
        """Between images and channels."""
        return self.window.axes

    @property
    def packed(self) -> bool:
        """Codes do not lie in bytes."""
        return self.bits < BYTE

    @property
    def grid(self) -> IntGrid:
        """Of the codes."""
        return IntGrid(self.bits)

    @property
    def codes(self) -> tuple[str, ...]:
        """The inputs that hold the weights' numbers."""
        planes = tuple(f"plane{at}" for at in range(len(self.grid.planes)))
        return (*planes, "shape") if self.packed else ("codes",)

    @property
    def inputs(self) -> tuple[str, ...]:
        """All inputs in order."""
        first = ("x", "x_scale", "x_zero", *self.codes, "scale", "zero", "bias", "bias_scale", *MADE)
        return (*first, *(("low", "high") if self.cut == "clip" else ()), *((*OTHER, *SUM) if self.adds else ()))

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it makes."""
        return ("y",)

    def constants(self) -> Mapping[str, np.ndarray]:
        """See `LibraryOp.constants`: all but values."""
        whole: dict[str, np.ndarray] = {
            "codes": np.ones((self.groups, 1, *self.window.kernel), np.int8),
            "shape": np.array((self.groups, 1, *self.window.kernel), np.int64),
            "scale": np.ones(self.groups, np.float32),
            "zero": np.ones(self.groups, np.int8),
            "bias": np.ones(self.groups, np.int32),
            "bias_scale": np.ones(self.groups, np.float32),
        }
        if self.packed:
            count = -(-self.groups * prod(self.window.kernel) // UNIT) * UNIT
            whole |= dict(zip(self.codes, pack(np.ones(count, np.uint8), self.bits), strict=False))
        numbers = {name: np.ones((), np.uint8 if name.endswith("zero") else np.float32) for name in self.inputs}
        return {name: whole.get(name, array) for name, array in numbers.items() if name not in ("x", "other")}

    def dtype(self, name: str) -> np.dtype:
        """See `LibraryOp.dtype`."""
        return np.dtype(np.uint8)


def parse_chain(name: str) -> ChainOp | None:
    """The op that a name stands for, if it is such a name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    window = window_of(found.groups()[:4])
    depthwise, groups, bits, cut, adds, last, cut_sum = found.groups()[4:]
    word: Cut = "relu" if cut == "relu" else "clip" if cut else ""
    if window is None or (groups and (depthwise or not int(groups))):
        return None
    how = bool(depthwise), int(groups or 1), int(bits or BYTE), word, bool(adds), bool(last), bool(cut_sum)
    made = ChainOp(window, *how)
    return made if made.name == name else None
