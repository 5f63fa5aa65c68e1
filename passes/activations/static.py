"""Rounding activations by a step that calibration decides."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import TENSOR
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.value import BYTE_BITS, FEWEST_BITS, MOST_BITS, SMALLEST_STEP, TOKEN, EncodedValue, ValueEncoding
from qcc.ir.errors import Refused
from qcc.ir.graph.form import Form
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.contract import Between, Rewrite
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.fold.channel_steps import ChannelSteps

FINEST = 2048  # of the largest magnitude: what is smaller a divergence does not look at (the bins of Migacz 2017)
RARE = 0.001  # of the numbers, that a divergence may leave out: where many are the same, it would leave out most
A_LEVEL = 2  # bins at least, on the mean, that a divergence looks at
SHARES = np.geomspace(1, 1 / 64, 97)  # of the largest magnitude, that a search by squared error tries


@dataclass(frozen=True)
class Static(Activations):
    """Round activations to int8 by steps that are decided when compiling, one for each layer.

    The layer multiplies integers, which plain ONNX Runtime does much faster than floats. One step serves all inputs, so
    it is less exact than a step a row (`dynamic`, and of kernels ``export { activations = int8 }``), and with kernels
    hardly faster than those. Give calibration data that is like what the model will see. It takes linear layers and
    convolutions whose weights become ``int8 channel`` or ``int7 channel``; with kernels linear layers of fewer bits.

    Around a convolution what it makes is rounded as well, each value by a step and a zero of its own, once for all that
    reads it, so that sums and pools between convolutions run on integers with them.

    Language models put numbers into the first token of a text that are far from all others, and one step for all of
    them leaves nothing of the rest. ``float_tokens`` multiplies the first tokens, along the axis before the channels,
    as floats, and they do not count for the step. A model with a cache of keys and values is fed the others one by one:
    there each is the first.

    ``by = channel`` gives each channel a step of its own, and ``by = group`` each ``size`` neighbouring ones: channels
    are divided by the largest magnitude that each had, in what makes them, and the weights multiplied
    (`channel_steps`). Integers are then added up as with one step for all, and nothing gets slower but where a product
    must be put in front of a layer. The weights bear the unevenness; ranges are those of all channels together.

    ``by = token`` gives each place of a text a step of its own, the largest magnitude that it had: the first token too,
    so that it needs no exception. A row of integers is multiplied by its step behind the product, which adds a
    division and a product to each layer. Linear layers take it whose inputs have an axis of tokens before the
    channels. Longer texts than calibration had are rounded by the last place's step.

    Args:
        range: ``absmax`` reaches the largest magnitude that calibration shows, ``percentile`` leaves out a few,
            ``mse`` searches the range of least squared error, ``entropy`` that in which the rounded magnitudes are
            distributed most like those that were seen (Kullback-Leibler divergence; what is smaller than a 2048th of
            the largest does not count), and which leaves out a thousandth of them at most.
        percentile: of the magnitudes, in percent, that a range ``percentile`` reaches.
        float_tokens: how many first tokens are not rounded.
        first: ``same`` promises that these tokens are always those that the calibration data has. Where what a layer
            reads of them is the same in all of it, its product of them is computed when compiling, and stored.
        by: what shares a step: the whole ``tensor`` that a layer reads, each ``channel``, each ``group`` of them, or
            each ``token``, by its place.
        size: channels of a group.
        bits: of the integers. Fewer than 8 lie in bytes, and are multiplied as such; of more ONNX Runtime's CPU
            multiplies none, so that values are rounded and multiplied as floats, unless the target is a provider that
            takes 16 bits (`qdq(qnn)`).

    Source: A white paper on neural network quantization, Nagel et al. 2021 (arXiv:2106.08295), section 3.1; first
    tokens as constants: MixDQ, Zhao et al. 2024 (arXiv:2405.17873).
    """

    when: ClassVar[Literal["static", "dynamic"]] = "static"

    range: Literal["absmax", "percentile", "mse", "entropy"] = "absmax"
    percentile: Annotated[float, Between(50, 100)] = 99.99
    float_tokens: Annotated[int, Between(0, 64)] = 0
    first: Literal["any", "same"] = "any"
    bits: Annotated[int, Between(FEWEST_BITS, MOST_BITS)] = BYTE_BITS
    by: Literal["tensor", "channel", "group", "token"] = "tensor"
    size: Annotated[int, Between(2, 65_536)] = 32

    def __post_init__(self) -> None:
        """What goes together."""
        if self.by == "token" and self.float_tokens:
            raise ValueError("`by = token` gives first tokens steps of their own: leave `float_tokens` out")
        if self.by == "token" and self.range != "absmax":
            raise ValueError("steps of tokens reach the largest magnitude of each: `by = token` takes `range = absmax`")

    def encoding(self, form: Form) -> ValueEncoding:
        """With a zero that calibration decides, where the form takes one: activations mostly lie on one side of it."""
        if self.by == "token":
            return ValueEncoding(Blocked(IntGrid(self.bits), TOKEN, "fp32"), "static", signed=form.signed)
        symmetric = form.rounds and not form.takes_zeros
        stored = Blocked(IntGrid(self.bits, symmetric), TENSOR, "fp32")
        return ValueEncoding(stored, "static", self.float_tokens, form.signed)

    def before(self) -> Rewrite | None:
        """Channels are made even, where each has its step, or each group of them."""
        sizes = {"channel": 1, "group": self.size}
        return ChannelSteps(sizes[self.by]) if self.by in sizes else None

    def knows_first(self) -> bool:
        """As ``first`` says."""
        return self.float_tokens > 0 and self.first == "same"

    def of_one_token(self) -> "Static":
        """Without an exception."""
        return replace(self, float_tokens=0)

    def encoded(self, encoding: ValueEncoding, magnitudes: Magnitudes | None) -> EncodedValue:
        """With the step, and the zero, that the magnitudes show."""
        if magnitudes is None:
            raise Refused("calibration did not see what its layers read")
        if encoding.by_position:
            return EncodedValue(encoding, zero=encoding.grid.middle, positions=_by_place(encoding, magnitudes))
        leading = magnitudes.leading if self.first == "same" else None
        if encoding.centred:
            return EncodedValue(encoding, self.step(magnitudes), encoding.grid.middle, leading)
        last = encoding.grid.levels - 1
        top = self._top(magnitudes, lambda top: _span(magnitudes, top) / last)
        step = _below(_span(magnitudes, top) / last)
        zero = int(np.clip(np.rint(min(-magnitudes.lowest, top) / step), 0, last))
        return EncodedValue(encoding, step, zero, leading)

    def step(self, magnitudes: Magnitudes) -> np.float32:
        """The range's end over the largest number, 127 of 8 bits; where all is zero, any step does."""
        highest = IntGrid(self.bits).highest
        top = self._top(magnitudes, lambda top: top / highest)
        return np.float32(max(top / highest, SMALLEST_STEP)) if top else np.float32(1)

    def _top(self, magnitudes: Magnitudes, step: Callable[[float], float]) -> float:
        """The largest magnitude in the range, where one of such gives this step."""
        if not magnitudes.finite:
            raise Refused("its activations are not finite on the calibration data", broken=True)
        top = magnitudes.largest
        if self.range == "percentile":
            return magnitudes.quantile(self.percentile / 100)
        if loss := _LOSSES.get(self.range):
            top *= min(SHARES, key=lambda share: loss(magnitudes, share * top, step(share * top)))
        return top


def _by_place(encoding: ValueEncoding, magnitudes: Magnitudes) -> tuple[float, ...]:
    """The steps of the places of a text."""
    largest = magnitudes.positions
    if largest is None or not largest.size:
        raise Refused("calibration did not see its tokens one by one")
    if not np.isfinite(largest).all():
        raise Refused("its activations are not finite on the calibration data", broken=True)
    steps = np.maximum(largest / np.float32(encoding.grid.highest), np.float32(SMALLEST_STEP))
    return tuple(map(float, steps.astype(np.float32)))


def _span(magnitudes: Magnitudes, top: float) -> float:
    """From one end of a range to the other, zero between; where there is one sign alone, they are on one side."""
    return min(magnitudes.highest, top) + min(-magnitudes.lowest, top)


def _below(step: float) -> np.float32:
    """The step, or the next below it: no whole number lies beyond the range, so that what cut it off is needless."""
    found = np.float32(step)
    found = np.nextafter(found, np.float32(0)) if float(found) > step else found
    return max(found, np.float32(SMALLEST_STEP)) if step else np.float32(1)


def _noise(magnitudes: Magnitudes, top: float, step: float) -> float:
    """The expected squared error, summed: of what is cut off, of what becomes zero, and of rounding between."""
    middles, counts = magnitudes.bins()
    errors = np.where(middles > top, (middles - top) ** 2, step**2 / 12)
    return float(counts @ np.where(middles < step / 2, middles**2, errors))


def _divergence(magnitudes: Magnitudes, top: float, step: float) -> float:
    """How unlike the magnitudes, cut off at the range's end, are what is left when each level is spread evenly."""
    middles, counts = magnitudes.bins()
    normal = middles >= magnitudes.largest / FINEST
    middles, counts = middles[normal], counts[normal]
    inside = middles <= top
    if counts[~inside].sum() > RARE * counts.sum():
        return np.inf
    kept, seen = counts[inside].astype(np.float64), middles[inside]
    levels, level = np.unique(np.rint(seen / step), return_inverse=True)
    if kept.size < A_LEVEL * levels.size:  # too few numbers to tell how they lie inside of levels
        return np.inf
    widths = 2.0 ** np.floor(np.log2(seen))  # of bins, in one unit
    spread = widths * (np.bincount(level, kept) / np.bincount(level, widths))[level]
    cut = kept.copy()
    cut[-1] += counts[~inside].sum()
    return float(cut @ np.log(cut / spread) / cut.sum() + np.log(kept.sum() / cut.sum()))


_LOSSES: dict[str, Callable[[Magnitudes, float, float], float]] = {"mse": _noise, "entropy": _divergence}
