"""Searching the range that the codes of a block cover.

For every block a few clipping ratios are tried; for the numbers ``q`` of the grid that a ratio gives, the best scale
has the closed form ``<w, q> / <q, q>``, so candidates compare by ``<w, q>^2 / <q, q>`` without decoding. A symmetric
grid of two's complement has one more level below zero than above: a negative scale puts it where the block needs it.

Where data tells what a squared error of each weight costs, ``<a, b>`` counts each by that. Wide grids leave errors so
small beside the weights that sums in float32 would choose by chance.

Source: OMSE clipping, Choukroun et al. 2019 (arXiv:1902.06822), section 3; least-squares scales, Hubara et al. 2020
(arXiv:2006.10518), section 3.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from functools import lru_cache
from itertools import product
from typing import Literal, TypeVar

import numpy as np

from qcc.ir.cores import cores
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.grid import Grid

Clip = Literal["mse", "absmax", "statsq"]
P = TypeVar("P")
BlockPart = tuple[slice, slice]
"""Some blocks, by the two axes along which they lie."""
CHUNK = 1 << 18  # elements worked on at once: fewer, and calls take longer than what they do
HEAP_BYTES = (32 << 20) - (1 << 16)  # the most that counts, with what stands around it
LONGEST_SUM = 4096  # float32 sums over more terms lose the differences that the search looks for
LONGEST_COLUMN = 256  # the same, one after the other down a column
RATIOS = {2: (0.35, 1.0, 14), 3: (0.5, 1.0, 12), 4: (0.6, 1.0, 12)}  # first, last, count; wider grids clip little
WIDE_RATIOS = (0.85, 1.0, 7)
FARTHER = 2  # times as far as that the ranges of long blocks may be clipped: their largest weight is farther out
INNER = 1.6  # times its usual step, where numbers lie closer before the last
COARSE = 3  # one ratio of so many is tried everywhere
NEARER = (1.5, 0.75, 0.375)  # ratios beside the best so far, in distances between neighbours


def symmetric(
    blocks: np.ndarray, encoding: Blocked, clip: Clip, cost: np.ndarray | None = None, along: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Scales of blocks without zero points; and zeros.

    Args:
        blocks: of weights, a row each, or a column.
        encoding: of the weights.
        clip: see `fit.encode`.
        cost: of a squared error of each weight, as many as the blocks have; None if all cost the same.
        along: the axis of a block.
    """
    grid, best = encoding.grid, _Best(blocks, encoding, cost, along)
    low, high = blocks.min(along), blocks.max(along)
    largest = np.where(high >= -low, high, low)
    if clip == "absmax":
        return best.laid(np.abs(largest) / grid.highest), best.laid(best.zero)
    typical = _reach(blocks, along) * np.float32(2 / (grid.highest - grid.lowest + grid.widest))
    if clip == "statsq":
        return best.laid(typical), best.laid(best.zero)
    ratios, near = _ratios(encoding.bits, blocks.shape[along] > LONGEST_COLUMN, uneven(grid))
    # one puts the largest weight on a level that both sides have, the other on the one level that only one side has
    ends = [np.abs(largest) / grid.highest, *((largest / grid.lowest,) if encoding.signed_scales else ())]
    best.take([(typical,), *((end * ratio,) for ratio in ratios for end in ends)])
    for offset in near:
        (step,) = best.how
        best.take([(step * (1 - offset),), (step * (1 + offset),)])
    best.take([(best.scale,)])
    return best.laid(best.scale), best.laid(best.zero)


def asymmetric(
    blocks: np.ndarray, encoding: Blocked, clip: Clip, cost: np.ndarray | None = None, along: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Scales and zero points of blocks; see `symmetric`."""
    grid, best = encoding.grid, _Best(blocks, encoding, cost, along)
    top = grid.highest - grid.lowest

    def over(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, ...]:
        step = np.asarray((high - low) / np.float32(top))
        return step, _zero(-low, step, top), low, high

    low, high = np.minimum(blocks.min(along), 0), np.maximum(blocks.max(along), 0)
    if clip != "absmax":
        reach = _reach(blocks, along)
        below, above = np.maximum(low, -reach), np.minimum(high, reach)
    if clip != "mse":
        step, zero, *_ = over(low, high) if clip == "absmax" else over(below, above)
        return best.laid(step), best.laid(zero)
    ratios, near = _ratios(encoding.bits, blocks.shape[along] > LONGEST_COLUMN, False)
    pulled = [(low * at_low, high * at_high) for one in ratios for at_low, at_high in ((one, one), (one, 1), (1, one))]
    best.take([over(below, above), *(over(*ends) for ends in pulled)])
    for offset in near:
        for which in ((1, 1), (1, 0), (0, 1)):
            ends = best.how[2:]
            moved = ([end * (1 + by * one) for end, one in zip(ends, which, strict=True)] for by in (-offset, offset))
            best.take([over(*both) for both in moved])
    best.take([(best.scale, best.zero, *best.how[2:])])
    return best.laid(best.scale), best.laid(best.zero)


class _Best:
    """The best scale seen for each block, by the squared error that its codes would leave.

    ``how`` it came: the step that was rounded by, and where there are zero points, the zero and the ends of the range;
    each a number a block.
    """

    def __init__(self, blocks: np.ndarray, encoding: Blocked, cost: np.ndarray | None, along: int) -> None:
        self._blocks, self._cost, self._along, self._grid = blocks, cost, along, encoding.grid
        self._wanted = blocks if cost is None else blocks * cost
        self._steps = np.empty_like(blocks)
        self._sums = np.float32 if encoding.bits in RATIOS else np.float64
        count = blocks.shape[1 - along]
        self._gain, self.scale = np.full(count, -1.0), np.zeros(count, np.float32)
        self.how: tuple[np.ndarray, ...] = (np.zeros(count, np.float32),) * (1 if encoding.symmetric else 4)

    @property
    def zero(self) -> np.ndarray:
        """The zero of each block."""
        return self.how[1] if len(self.how) > 1 else np.zeros(len(self.scale), np.float32)

    def laid(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers, one a block, beside the blocks."""
        return numbers[None] if self._along == 0 else numbers[:, None]

    def take(self, candidates: Sequence[tuple[np.ndarray, ...]]) -> None:
        """Take what is better for a block than all that was seen, of some ways to round it."""
        found = [self._tried(*candidate[:2]) for candidate in candidates]
        for candidate, (gain, scale) in zip(candidates, found, strict=True):
            better = gain > self._gain
            self._gain = np.maximum(gain, self._gain)
            pairs = zip((scale, *candidate), (self.scale, *self.how), strict=True)
            self.scale, *how = (np.where(better, new, old) for new, old in pairs)
            self.how = tuple(how)

    def _tried(self, step: np.ndarray, zero: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """What rounding by a step leaves less of the squared sum of each block, and the best scale of its codes."""
        steps = np.multiply(self._blocks, self.laid(inverse_of(step)), out=self._steps)
        codes = self._grid.round(steps, None if zero is None else self.laid(zero), out=steps)
        shared = inner(self._wanted, codes, self._along, self._sums)
        power = inner(codes if self._cost is None else codes * self._cost, codes, self._along, self._sums)
        scale = shared / np.maximum(power, np.finfo(np.float32).tiny)
        return shared * scale, scale.astype(np.float32)


def inner(left: np.ndarray, right: np.ndarray, along: int = 1, sums: type[np.floating] = np.float32) -> np.ndarray:
    """Inner products of the rows of two matrices, or of their columns, float64; summed up in another type."""
    if along == 0:
        down: np.ndarray = np.einsum("ji,ji->i", left, right, dtype=sums)
        return down.astype(np.float64)
    total = np.zeros(len(left))
    for start in range(0, left.shape[1], LONGEST_SUM):
        part = slice(start, start + LONGEST_SUM)
        total += np.einsum("ij,ij->i", left[:, part], right[:, part], dtype=sums)
    return total


def _reach(blocks: np.ndarray, along: int) -> np.ndarray:
    """Twice the mean magnitude of what is not zero in each block, which may be filled up with zeros.

    Source: OFQ, Liu et al. 2023 (arXiv:2302.02210), section 3.1, StatsQ.
    """
    sizes = np.abs(blocks)
    count = blocks.shape[along] if sizes.min(initial=1) > 0 else np.maximum(np.count_nonzero(blocks, along), 1)
    total = sizes.astype(np.float64).sum(0) if along == 0 else sizes.sum(along, dtype=np.float64)
    return np.asarray(2 * total / count, np.float32)


def unit_of(blocks: np.ndarray, along: int) -> np.ndarray:
    """A power of two for each block that brings its largest weight near 1, so that no square over- or underflows."""
    largest = np.maximum(blocks.max(along, keepdims=True), -blocks.min(along, keepdims=True))
    exponent = np.frexp(largest)[1]
    unit: np.ndarray = np.ldexp(np.float32(1), np.clip(-exponent, -126, 126))
    return unit


def in_steps(values: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Values in steps; no steps where the step is zero."""
    steps: np.ndarray = values * inverse_of(step)
    return steps


def _zero(below: np.ndarray, step: np.ndarray, top: float) -> np.ndarray:
    """The zero point under which so much lies below zero."""
    return np.asarray(np.clip(np.rint(in_steps(below, step)), 0, top))


@lru_cache
def uneven(grid: Grid) -> bool:
    """Some of its numbers lie closer than others.

    So the largest weight of a block may do better as one before the last: 4 of ``fp4``, beside which others are nearer.

    Source: Four over six, Cook et al. 2025 (arXiv:2512.02010), section 3.
    """
    numbers = np.unique(grid.numbers(np.arange(1 << grid.bits, dtype=grid.dtype)))
    steps = np.diff(numbers[np.isfinite(numbers)])
    return bool(steps.max(initial=0) > 1.01 * steps.min(initial=np.inf))


@lru_cache
def _ratios(bits: int, long: bool, inner: bool) -> tuple[tuple[np.float32, ...], tuple[np.float32, ...]]:
    """Ratios that are tried everywhere, and how far beside the best others are, as shares of it, from far to near.

    Args:
        bits: of a code.
        long: blocks are.
        inner: the largest weight may become another number than the last, too.
    """
    first, last, count = RATIOS.get(bits, WIDE_RATIOS)
    apart = (last - first) / (count - 1)
    more = (FARTHER - 1) * (count - 1) if long and bits in RATIOS else 0
    beyond = round((INNER - last) / apart / COARSE) * COARSE if inner and bits in RATIOS else 0
    ratios = last - apart * np.arange(-beyond, count + more, COARSE, dtype=np.float32)
    near = (np.float32(one * apart * 2 / (first + last)) for one in NEARER)
    return tuple(ratios[ratios > 0]), tuple(near)


def inverse_of(values: np.ndarray) -> np.ndarray:
    """One over each; zero for those whose inverse would overflow."""
    some = np.abs(values) >= np.finfo(values.dtype).tiny
    if some.all():  # as it nearly always is: a division under a mask takes several times as long
        return np.asarray(1 / values)
    inverse = np.zeros_like(values)
    np.divide(1, values, out=inverse, where=some)
    return inverse


def as_it_lies(blocks: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Blocks ``[down, rows, across, columns]`` of a matrix, and what goes with them, by axes as memory has them.

    Down and across change places where blocks below each other are the nearer ones.
    """
    turned = abs(blocks.strides[0]) < abs(blocks.strides[2])
    return tuple(one.swapaxes(0, 2) if turned else one for one in (blocks, *others))


def laid_out(blocks: np.ndarray, along: int) -> np.ndarray:
    """Blocks ``[down, rows, across, columns]`` as rows ``[blocks, block size]``, or as columns.

    Sums over them must not follow how a matrix lies in memory, so what is searched lies one way.
    """
    size = blocks.shape[1] * blocks.shape[3]
    order, shape = ((0, 2, 1, 3), (-1, size)) if along else ((1, 3, 0, 2), (size, -1))
    return np.ascontiguousarray(blocks.transpose(order).reshape(shape))


def for_each_part(blocks: np.ndarray, work: Callable[[BlockPart], None]) -> None:
    """Work on some blocks of ``[down, rows, across, columns]`` at a time, in threads.

    No part is much smaller than the others: a sum over a block that stands alone is taken in another order.
    """
    down, rows, across, columns = blocks.shape
    most = max(CHUNK // max(rows * columns, 1), 1)
    beside = _evenly(across, most)
    _in_threads(list(product(_slices(down, _evenly(down, max(most // beside, 1))), _slices(across, beside))), work)


def for_each_chunk(blocks: np.ndarray, work: Callable[[slice], None]) -> None:
    """Work on some rows of blocks at a time, in threads."""
    _in_threads(list(_slices(len(blocks), max(CHUNK // max(blocks.shape[1], 1), 1))), work)


@lru_cache(1)
def _keep_freed() -> None:
    """Let the C library keep what is freed.

    By default it gives the system back each array of a megabyte, and takes anew what comes as pages to be cleared: a
    quarter of the time that the search takes.

    Source: mallopt(3), `M_MMAP_THRESHOLD`: it grows to what is freed, up to 32 MB, and what is kept to twice as much.
    """
    np.empty(HEAP_BYTES, np.uint8)


def _in_threads(parts: Sequence[P], work: Callable[[P], None]) -> None:
    _keep_freed()
    if len(parts) == 1:
        work(parts[0])
        return
    with futures.ThreadPoolExecutor(cores()) as pool:
        list(pool.map(work, parts))


def _evenly(count: int, most: int) -> int:
    """How many to take at once, at most so many, so that all shares are about alike."""
    return -(-count // -(-count // most)) if count else 1


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, start + size)
