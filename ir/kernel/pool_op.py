"""Pools of bytes between convolutions that hand on bytes, named by all that they do."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from qcc.ir.kernel.library_op import LibraryOp
from qcc.ir.kernel.window import SOLID, WORDS, KernelWindow, window_of

Pooled = Literal["max", "mean"]
_NAME = re.compile(rf"qpool_(max|mean)(?:{WORDS}|_(\d)axes)", re.ASCII)
SCALES = ("x_scale", "x_zero", "y_scale", "y_zero")


@dataclass(frozen=True)
class PoolOp(LibraryOp):
    """``y [n, rows, columns, channels]``, of bytes without a sign, channel by channel: one to three axes are between.

    The input is ``x``, and where means are made its ``x_scale`` and ``x_zero``, and ``y_scale`` and ``y_zero``. A mean
    counts all numbers of the window, those around the image as zeros.

    Args:
        pooled: the largest number that a window sees, or the mean.
        window: the window; None for one that sees all of the image.
        axes: between images and channels.
    """

    counted: ClassVar[tuple[str, str]] = ("pool", "between them")

    pooled: Pooled
    window: KernelWindow | None
    axes: int

    @property
    def name(self) -> str:
        """The op's name in domain ``qcc``."""
        return f"qpool_{self.pooled}{f'_{self.axes}axes' if self.window is None else self.window.words}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """All inputs in order."""
        return ("x", *(SCALES if self.pooled == "mean" else ()))

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it makes."""
        return ("y",)

    def constants(self) -> Mapping[str, np.ndarray]:
        """See `LibraryOp.constants`."""
        return {name: np.ones((), np.uint8 if name.endswith("zero") else np.float32) for name in self.inputs[1:]}

    def dtype(self, name: str) -> np.dtype:
        """See `LibraryOp.dtype`."""
        return np.dtype(np.uint8)


def parse_pool(name: str) -> PoolOp | None:
    """The op that a name stands for, if it is such a name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    pooled: Pooled = "max" if found[1] == "max" else "mean"
    if found[6]:
        return PoolOp(pooled, None, int(found[6])) if int(found[6]) in SOLID else None
    window = window_of(found.groups()[1:5])
    made = None if window is None else PoolOp(pooled, window, window.axes)
    return made if made is not None and made.name == name else None
