"""Parts of a graph that make one convolution of one value, whatever ops they are written in."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Kind, Op, Value
from qcc.ir.regions.affine import ChannelAxis, LinearRegion, RegionFinder
from qcc.ir.regions.flow import Flow
from qcc.ir.regions.linear import SEED, TOLERANCES, beside

MOST_NUMBERS = 1 << 24  # of what is fed at once
TINY = 1e-30
SEEN = 1e-6  # of the largest number: what is less is rounding
Place = tuple[int, ...]
UNLIKE = "it is not one convolution that is the same at every place"
SMALL = "its images are too small to see a whole window in"


@dataclass(frozen=True)
class Window:
    """How a convolution goes over places: sizes, strides and dilations by axis, pads before all axes and behind."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, op: Op) -> "Window | None":
        """A convolution's own; None where it is not known."""
        found = [op.attributes.get(name) for name in ("kernel", "strides", "dilations", "pads")]
        groups = op.attributes.get("groups", 1)
        if op.function != "conv" or not all(isinstance(one, tuple) and one for one in found):
            return None
        kernel, strides, dilations, pads = (tuple(int(size) for size in one) for one in found)  # type: ignore[union-attr]
        if len(pads) != 2 * len(kernel) or not isinstance(groups, int) or min(*pads, 0) < 0:
            return None
        return cls(kernel, strides, dilations, pads, groups)

    @property
    def reach(self) -> tuple[int, ...]:
        """How far it goes along each axis."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True))

    def result(self, places: Sequence[int]) -> tuple[int, ...]:
        """How many places come out, by axis."""
        rank = len(self.kernel)
        whole = [size + self.pads[at] + self.pads[at + rank] for at, size in enumerate(places)]
        sizes = zip(whole, self.reach, self.strides, strict=True)
        return tuple((one - reach) // step + 1 for one, reach, step in sizes)


def window_regions(graph: Graph, flow: Flow) -> Iterator[LinearRegion]:
    """The regions of two ops and more with a convolution in them, in the order of `linear_regions`.

    That each op is affine does not make them one convolution: `kernel_of` sees whether it is.
    """
    finder = RegionFinder(graph, flow, PLANES)
    kinds = {op.name: op.kind for op in flow.ops}
    for op in reversed(flow.ops):
        yield from (one for one in finder.regions(op) if any(kinds[name] is Kind.CONV for name in one.ops))


def kernel_of(graph: Graph, region: LinearRegion, window: Window) -> tuple[Array, Array]:
    """The weight ``[out, in of a group, ...]`` and the vector ``[out]`` of a region as a convolution of a given window.

    Both are read off what the region makes of one number at one place, channel by channel; whether that is all of it,
    whoever takes it has to see.

    Raises:
        Refused: it is none, does not run, or a whole window fits nowhere.
    """
    source = graph.value(region.source)
    run, places = graph.runner([region.source], [region.end]), _places(source, window)
    many, fed = _batch(source, region.shape[0] * math.prod(places), region.shape[0])

    def made(feed: Array) -> Array:
        return _made(run, region, feed, source.dtype)

    bias = made(np.zeros((fed, region.shape[0], *places)))[0]
    constant = bias[(slice(None), *(size // 2 for size in bias.shape[1:]))]
    kernel = _taps(made, window, region.shape, (many, fed), (places, bias), 1)
    size = beside(constant, kernel)
    if size > 1:  # else the sum keeps few digits of what is added to a large vector
        kernel = _taps(made, window, region.shape, (many, fed), (places, bias), size)
    return _grouped(kernel, window.groups), constant


def _taps(
    made: Callable[[Array], Array],
    window: Window,
    shape: tuple[int, int],
    samples: tuple[int, int],
    still: tuple[Place, Array],
    size: float,
) -> Array:
    """The weight ``[out, in, ...]``, read off what becomes of a number of a size at one place.

    Args:
        made: what comes of a value.
        window: of the weight.
        shape: ``(in, out)``.
        samples: how many are used at once, and how many are fed.
        still: the sizes of images, and what comes of zeros.
        size: of the number.
    """
    (inputs, outputs), (many, fed), (places, bias) = shape, samples, still
    kernel, seen = np.zeros((outputs, inputs, *window.kernel)), np.zeros(window.kernel, bool)
    for start in product(*map(range, window.strides)):
        at = tuple(size // 2 + more for size, more in zip(places, start, strict=True))
        known = dict(_hits(at, window, bias.shape[1:]))
        if not known or any(one >= size for one, size in zip(at, places, strict=True)):
            continue
        for first in range(0, inputs, many):
            some = np.arange(first, min(first + many, inputs))
            feed = np.zeros((fed, inputs, *places))
            one: Any = np.arange(len(some)), some, *at
            feed[one] = size
            found = (made(feed)[: len(some)] - bias) / size
            for tap, place in known.items():
                where: Any = slice(None), some, *tap
                kernel[where] = found[(slice(None), slice(None), *place)].T
                seen[tap] = True
    if not seen.all():
        raise Refused(SMALL)
    return kernel


def is_same(before: Graph, after: Graph, region: LinearRegion, end: str, window: Window) -> bool:
    """Two graphs make the same of random numbers, at the edges as in the middle.

    Args:
        before: with the region.
        after: without it.
        region: from whose source to whose end.
        end: what that is called after.
        window: of the convolution.
    """
    source = before.value(region.source)
    places = _places(source, window)
    _, fed = _batch(source, region.shape[0] * math.prod(places), 2)
    feed = np.random.default_rng(SEED).standard_normal((fed, region.shape[0], *places))
    one = _made(before.runner([region.source], [region.end]), region, feed, source.dtype)
    other = after.runner([region.source], [end])({region.source: feed.astype(source.dtype)})[end].astype(np.float64)
    limit = TOLERANCES[source.dtype] * max(float(np.abs(one).max()), TINY)
    return one.shape == other.shape and bool(np.abs(one - other).max() <= limit)


def _grouped(kernel: Array, groups: int) -> Array:
    """The blocks on the diagonal, of which there is one a group."""
    outputs, inputs = kernel.shape[0] // groups, kernel.shape[1] // groups
    blocks = [kernel[at * outputs : (at + 1) * outputs, at * inputs : (at + 1) * inputs].copy() for at in range(groups)]
    rest = kernel.copy()
    for at in range(groups):
        rest[at * outputs : (at + 1) * outputs, at * inputs : (at + 1) * inputs] = 0
    if np.abs(rest).max(initial=0) > SEEN * np.abs(kernel).max(initial=0):
        raise Refused("what hangs beside it mixes channels of several groups")
    return np.concatenate(blocks)


def _hits(at: Sequence[int], window: Window, result: Sequence[int]) -> Iterator[tuple[Place, Place]]:
    """By which number of the window a place is multiplied, for which places that come out."""
    for tap in product(*map(range, window.kernel)):
        far = [p + pad - t * step for p, pad, t, step in zip(at, window.pads, tap, window.dilations, strict=False)]
        if any(one % stride for one, stride in zip(far, window.strides, strict=True)):
            continue
        place = tuple(one // stride for one, stride in zip(far, window.strides, strict=True))
        if all(0 <= one < size for one, size in zip(place, result, strict=True)):
            yield tap, place


def _places(value: Value, window: Window) -> tuple[int, ...]:
    """The sizes of images: the graph's own, or such that whole windows fit."""
    sizes = (value.shape or ())[2:]
    enough = [2 * (reach + 2 * stride) for reach, stride in zip(window.reach, window.strides, strict=True)]
    return tuple(size if isinstance(size, int) else more for size, more in zip(sizes, enough, strict=True))


def _batch(value: Value, numbers: int, wanted: int) -> tuple[int, int]:
    """How many samples are used at once, and how many are fed."""
    size = (value.shape or ())[0]
    if isinstance(size, int):
        return size, size
    found = max(1, min(wanted, MOST_NUMBERS // max(numbers, 1)))
    return found, found


def _made(run: Runner, region: LinearRegion, feed: Array, dtype: str) -> Array:
    return run({region.source: feed.astype(dtype)})[region.end].astype(np.float64)


def _is_plane(value: Value) -> bool:
    shape = value.shape or ()
    known = len(shape) > 2 and isinstance(shape[1], int) and shape[1] > 0 and shape[0] != 0
    return known and value.dtype in TOLERANCES and not value.container


def _joins(start: Value, end: Value) -> bool:
    one, other = start.shape or (), end.shape or ()
    return len(one) == len(other) and one[0] == other[0]


PLANES = ChannelAxis(1, _is_plane, _joins, lambda _: True)
