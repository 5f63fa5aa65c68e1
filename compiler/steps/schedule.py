"""Which evaluations run the whole model: the segments of least total distance, exactly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.ir.graph.ops import Array


@dataclass(frozen=True)
class CachedSegment:
    """A whole evaluation, and those behind it that reuse what it gave.

    Args:
        begin: the whole one.
        end: behind the last.
        region: what is kept, by its place among the regions.
    """

    begin: int
    end: int
    region: int


Cost = Callable[[int, int, int], float]
"""Of a segment from one evaluation to before another, by a region."""


def best_segments(steps: int, most: int, regions: int, longest: int, cost: Cost) -> tuple[CachedSegment, ...]:
    """The segments of least total cost, at most so many, by dynamic programming over where each begins.

    Source: CacheQuant, Liu et al. 2025 (arXiv:2503.01323), section 4.2; the region is free in each segment.
    """
    found = np.full((most + 1, steps + 1), np.inf)
    found[0, 0] = 0.0
    came: dict[tuple[int, int], CachedSegment] = {}
    for end in range(1, steps + 1):
        for begin in range(max(0, end - longest), end):
            each = [cost(begin, end, region) for region in range(regions if end - begin > 1 else 1)]
            region = int(np.argmin(each))
            for count in range(1, most + 1):
                total = found[count - 1, begin] + each[region]
                if total < found[count, end]:
                    found[count, end] = total
                    came[count, end] = CachedSegment(begin, end, region)
    count, end = int(np.argmin(found[:, steps])), steps
    segments = []
    while end:
        segments.append(came[count, end])
        count, end = count - 1, segments[-1].begin
    return tuple(reversed(segments))


def channel_axis(rank: int) -> int:
    """The second axis of images, the last of anything else."""
    return 1 if rank >= 4 else rank - 1


def affine(carried: Array, wanted: Array) -> tuple[Array, Array]:
    """The scale and the offset of each channel by which what is carried is nearest to what is wanted.

    Source: CacheQuant, arXiv:2503.01323, section 4.3: covariance over variance, and the difference of means.
    """
    axes = tuple(at for at in range(carried.ndim) if at != channel_axis(carried.ndim))
    one, other = carried.astype(np.float64), wanted.astype(np.float64)
    means = one.mean(axes, keepdims=True), other.mean(axes, keepdims=True)
    spread = ((one - means[0]) ** 2).mean(axes)
    common = ((one - means[0]) * (other - means[1])).mean(axes)
    scale = np.divide(common, spread, out=np.ones_like(spread), where=spread > 1e-12 * np.maximum(1, spread.max()))
    return scale, means[1].ravel() - scale * means[0].ravel()


def corrected(carried: Array, scale: Array, offset: Array) -> Array:
    """What was carried, corrected."""
    shape = [1] * carried.ndim
    shape[channel_axis(carried.ndim)] = -1
    return np.asarray(carried * scale.reshape(shape) + offset.reshape(shape), np.float32)


def held_out(carried: Array, wanted: Array) -> tuple[Array, Array]:
    """The same, for the channels where it lowers the error of samples that it was not fitted on; the others stay."""
    count = len(carried)
    scale, offset = affine(carried, wanted)
    if count < 2:
        return scale, offset
    first = np.arange(count) < count // 2
    halves: Sequence[Array] = (first, ~first)
    axes = tuple(at for at in range(carried.ndim) if at != channel_axis(carried.ndim))
    gained = np.zeros(len(scale))
    for learnt, tried in (halves, halves[::-1]):
        after = corrected(carried[tried], *affine(carried[learnt], wanted[learnt]))
        gained += ((carried[tried] - wanted[tried]) ** 2 - (after - wanted[tried]) ** 2).sum(axes)
    return np.where(gained > 0, scale, 1.0), np.where(gained > 0, offset, 0.0)
