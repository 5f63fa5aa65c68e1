"""What can be tuned in a graph that is to be encoded: constants by which a value is made, channel by channel."""

from dataclasses import dataclass

import numpy as np

from qcc.ir.graph.ops import Array


@dataclass(frozen=True)
class TunedOperand:
    """A constant vector that an op reads, a number a channel.

    ``array`` is what it is, in the layout in which the op reads it; it may be left out, which is zeros.
    """

    op: str
    position: int
    array: Array


@dataclass(frozen=True)
class Tunable:
    """A value, and the constants by which its channels are scaled and shifted.

    Args:
        subject: names it among a pass's sites.
        layers: the weights that it stands for.
        value: that is compared with the float model's own; a float32 tensor.
        axis: of its channels.
        gain: what its channels are multiplied with; None where nothing scales them.
        shift: what is added to them; None where nothing is.
        refused: why nothing can be tuned; empty where something can.
    """

    subject: str
    layers: tuple[str, ...]
    value: str = ""
    axis: int = -1
    gain: TunedOperand | None = None
    shift: TunedOperand | None = None
    refused: str = ""

    def operands(self, fit: "ChannelFit") -> dict[tuple[str, int], Array]:
        """The constants that make of the value what a fit makes of it."""
        found = {}
        if self.gain is not None and np.any(fit.gain != 1):
            found[self.gain.op, self.gain.position] = _like(self.gain.array, _flat(self.gain) * fit.gain)
        moved = 0.0 if self.shift is None else _flat(self.shift) * fit.gain + fit.shift
        if self.shift is not None and np.any(moved != _flat(self.shift)):
            found[self.shift.op, self.shift.position] = _like(self.shift.array, moved)
        return found


def _flat(operand: TunedOperand) -> Array:
    return operand.array.reshape(-1).astype(np.float64)


def _like(array: Array, values: Array | float) -> Array:
    return np.asarray(values, array.dtype).reshape(array.shape)


@dataclass(frozen=True)
class ChannelFit:
    """``y = gain x + shift``, channel by channel ``[channels]``."""

    gain: Array
    shift: Array


@dataclass(frozen=True)
class ChannelSums:
    """Of numbers ``x`` beside numbers ``y``, channel by channel: their sums, and those of their products.

    Args:
        count: of the numbers of a channel.
        sums: of ``x``, ``y``, ``xx``, ``xy``, ``yy``, float64 ``[5, channels]``.
    """

    count: int
    sums: Array

    @classmethod
    def of(cls, x: Array, y: Array, axis: int) -> "ChannelSums":
        """The sums of two values."""
        rows, other = (np.moveaxis(one, axis, -1).reshape(-1, one.shape[axis]).astype(np.float64) for one in (x, y))
        return cls(len(rows), np.stack([one.sum(0) for one in (rows, other, rows**2, rows * other, other**2)]))

    def __add__(self, other: "ChannelSums") -> "ChannelSums":
        """Of both."""
        return ChannelSums(self.count + other.count, self.sums + other.sums)

    def fit(self, gain: bool, shift: bool) -> ChannelFit:
        """The least-squares fit of ``y`` by ``x``, with a gain, a shift, or both."""
        x, y, xx, xy, _ = self.sums / max(self.count, 1)
        mx, my = (x, y) if shift else (np.zeros_like(x), np.zeros_like(y))
        spread = xx - mx**2
        tells = spread > 1e-9 * np.maximum(xx, np.finfo(np.float64).tiny)
        slope = np.divide(xy - mx * my, spread, out=np.ones_like(x), where=tells) if gain else np.ones_like(x)
        return ChannelFit(slope, my - slope * mx if shift else np.zeros_like(y))

    def lost(self, fit: ChannelFit) -> Array:
        """The squared error of a fit, summed, ``[channels]``."""
        x, y, xx, xy, yy = self.sums
        a, b = fit.gain, fit.shift
        return np.asarray(a**2 * xx + 2 * a * b * x + b**2 * self.count - 2 * a * xy - 2 * b * y + yy)


def fit_channels(seen: ChannelSums, held: ChannelSums | None, gain: bool, shift: bool) -> tuple[ChannelFit, int]:
    """The fit of all numbers in the channels in which numbers held out are better off with what the others say.

    Args:
        seen: the numbers that are learned from.
        held: those that judge; without them all channels are fitted.
        gain: the fit has a gain.
        shift: it has a shift.

    Returns:
        The fit, which is ``y = x`` in the other channels, and in how many it is not.
    """
    stay = ChannelFit(np.ones(seen.sums.shape[1]), np.zeros(seen.sums.shape[1]))
    gained = 0.0 if held is None else held.lost(stay) - held.lost(seen.fit(gain, shift))
    better = np.broadcast_to(held is None or gained > 0, seen.sums.shape[1])
    whole = (seen if held is None else seen + held).fit(gain, shift)
    return ChannelFit(np.where(better, whole.gain, 1), np.where(better, whole.shift, 0)), int(better.sum())
