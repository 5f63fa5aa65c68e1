"""What a convolution multiplies its matrix with: windows of its input, as rows."""

from dataclasses import dataclass
from math import prod

import numpy as np

from qcc.ir.graph.ops import Array, Layer, Op

MOST = 64  # windows of a sample, evenly spaced: neighbours are alike


@dataclass(frozen=True)
class Windows:
    """How windows lie in an input ``[n, channels, ...]``.

    Args:
        kernel: sizes of a window.
        strides: from one to the next.
        dilations: from one number of a window to the next.
        begins: zeros in front of each axis.
        ends: zeros behind.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, op: Op, layer: Layer) -> "Windows | None":
        """Those of a layer, if its matrix multiplies whole windows and it says how they lie."""
        kernel, pads = layer.kernel, op.attributes.get("pads")
        if not kernel or layer.groups != 1 or op.function != "conv" or not isinstance(pads, tuple):
            return None
        strides, dilations = (op.attributes.get(name) for name in ("strides", "dilations"))
        rank = len(kernel)
        if not isinstance(strides, tuple) or not isinstance(dilations, tuple) or len(pads) != 2 * rank:
            return None
        return cls(kernel, strides, dilations, pads[:rank], pads[rank:])

    def rows(self, array: Array) -> Array:
        """Some of the windows ``[rows, channels * prod(kernel)]``, as many of each sample."""
        padding = [(0, 0), (0, 0), *zip(self.begins, self.ends, strict=True)]
        padded = np.pad(array, padding)
        spans = [dilation * (size - 1) + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True)]
        counts = [
            max((size - span) // stride + 1, 0)
            for size, span, stride in zip(padded.shape[2:], spans, self.strides, strict=True)
        ]
        total = prod(counts)
        if not total:
            return np.zeros((0, array.shape[1] * prod(self.kernel)), array.dtype)
        picked = _picked(total)
        places = np.unravel_index(picked, counts)
        taps = np.unravel_index(np.arange(prod(self.kernel)), self.kernel)
        index = tuple(
            place[:, None] * stride + tap[None, :] * dilation
            for place, tap, stride, dilation in zip(places, taps, self.strides, self.dilations, strict=True)
        )
        flat = np.ravel_multi_index(index, padded.shape[2:])
        found = padded.reshape(*padded.shape[:2], -1)[:, :, flat]  # [n, channels, windows, taps]
        return np.ascontiguousarray(found.swapaxes(1, 2)).reshape(array.shape[0] * len(picked), -1)

    def results(self, array: Array) -> Array:
        """What a convolution makes ``[n, channels, ...]`` of the same windows ``[rows, channels]``."""
        flat = array.reshape(*array.shape[:2], -1)
        return np.ascontiguousarray(flat[:, :, _picked(flat.shape[2])].swapaxes(1, 2)).reshape(-1, array.shape[1])


def _picked(total: int) -> Array:
    return np.unique(np.linspace(0, total - 1, min(MOST, total)).astype(np.int64))
