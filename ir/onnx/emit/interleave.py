"""Transposed convolutions as plain ones: each makes the results of one phase of its stride, which are interleaved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

Index = tuple[slice, ...]


@dataclass(frozen=True)
class Transposed:
    """What a transposed convolution does along each spatial axis.

    Args:
        groups: of channels.
        strides: between the places of the output that neighbours of the input start at.
        dilations: of the kernel.
        begins: results that are cut off in front.
        missing: likewise behind, less those that are asked for beside.
    """

    groups: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    missing: tuple[int, ...]

    @classmethod
    def of(cls, node: ir.Node, axes: int) -> "Transposed":
        """As a ``ConvTranspose`` says it, of which neither shape nor padding is left to be found."""
        get = node.attributes.get_ints
        pads, more = get("pads", (0,) * 2 * axes), get("output_padding", (0,) * axes)
        missing = tuple(pad - extra for pad, extra in zip(pads[axes:], more, strict=True))
        ones = (1,) * axes
        strides, dilations = tuple(get("strides", ones)), tuple(get("dilations", ones))
        return cls(node.attributes.get_int("group", 1), strides, dilations, tuple(pads[:axes]), missing)

    def filters(self, numbers: np.ndarray) -> np.ndarray:
        """``[out / groups, in, *kernel]  -->  [out * phases, in / groups, *taps]``: those of the plain convolution."""
        kernel = self._spread(numbers)
        taps = self.taps(kernel.shape[2:])
        sizes = [tap * stride for tap, stride in zip(taps, self.strides, strict=True)]
        whole = np.zeros((*kernel.shape[:2], *sizes), numbers.dtype)
        inside: Index = (slice(None), slice(None), *(slice(size) for size in kernel.shape[2:]))
        whole[inside] = kernel
        count, inner, axes = len(numbers), numbers.shape[1] // self.groups, len(taps)
        apart = [size for pair in zip(taps, self.strides, strict=True) for size in pair]
        parts = whole.reshape(count, self.groups, inner, *apart)
        order = (1, 0, *(4 + 2 * axis for axis in range(axes)), 2, *(3 + 2 * axis for axis in range(axes)))
        found = np.flip(parts.transpose(order), tuple(range(-axes, 0)))
        return found.reshape(self.groups * count * math.prod(self.strides), inner, *taps)

    def taps(self, kernel: Sequence[int]) -> tuple[int, ...]:
        """How many neighbours of the input each result of a phase has, for a kernel with its dilation."""
        return tuple(-(-size // stride) for size, stride in zip(kernel, self.strides, strict=True))

    def spread(self, kernel: Sequence[int]) -> tuple[int, ...]:
        """The sizes of a kernel with its dilation."""
        return tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, self.dilations, strict=True))

    def pads(self, kernel: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The plain convolution's pads, all begins and all ends, and how many results are too many behind."""
        wide = self.spread(kernel)
        ends, cut = [], []
        for size, tap, stride, missing in zip(wide, self.taps(wide), self.strides, self.missing, strict=True):
            needed = size - missing
            more = max(0, -(-needed // stride) - tap)
            ends.append(tap - 1 + more)
            cut.append(stride * (tap + more) - needed)
        return (*(tap - 1 for tap in self.taps(wide)), *ends), tuple(cut)

    def _spread(self, numbers: np.ndarray) -> np.ndarray:
        kernel = np.zeros((*numbers.shape[:2], *self.spread(numbers.shape[2:])), numbers.dtype)
        places: Index = (slice(None), slice(None), *(slice(None, None, dilation) for dilation in self.dilations))
        kernel[places] = numbers
        return kernel
