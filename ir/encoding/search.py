"""Searching the range that the codes of a block cover.

For every block a few clipping ratios are tried; for the numbers ``q`` of the grid that a ratio gives, the best scale
has the closed form ``<w, q> / <q, q>``, so candidates compare by ``<w, q>^2 / <q, q>`` without decoding. A symmetric
grid of two's complement has one more level below zero than above: a negative scale puts it where the block needs it.

Where data tells what a squared error of each weight costs, ``<a, b>`` counts each by that.

Source: OMSE clipping, Choukroun et al. 2019 (arXiv:1902.06822), section 3; least-squares scales, Hubara et al. 2020
(arXiv:2006.10518), section 3.
"""

import os
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Literal

import numpy as np

from qcc.ir.encoding.blocked import Blocked

Clip = Literal["mse", "absmax", "statsq"]
CHUNK = 1 << 16  # elements worked on at once: a few arrays of it fit a core's second-level cache
LONGEST_SUM = 4096  # float32 sums over more terms lose the differences that the search looks for
RATIOS = {2: (0.35, 1.0, 14), 3: (0.5, 1.0, 12), 4: (0.6, 1.0, 12)}  # first, last, count; wider grids clip little
WIDE_RATIOS = (0.85, 1.0, 7)
REFINEMENTS = 3  # rounds of codes from the scale, scale from the codes


def symmetric(
    blocks: np.ndarray, encoding: Blocked, clip: Clip, cost: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scales ``[blocks, 1]`` of blocks, a row each, without zero points; and zeros.

    Args:
        blocks: of weights.
        encoding: of the weights.
        clip: see `fit.encode`.
        cost: of a squared error of each weight, as many as the blocks have; None if all cost the same.
    """
    grid = encoding.grid
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1, keepdims=True), 1)
    best = _Best(blocks, cost)
    if clip == "absmax":
        return np.abs(largest) / grid.highest, best.zero
    typical = _reach(blocks) * np.float32(2 / (grid.highest - grid.lowest + grid.widest))
    if clip == "statsq":
        return typical, best.zero
    steps = in_steps(blocks, typical)
    best.offer(grid.round(steps, out=steps), best.zero)
    signed = encoding.signed_scales
    for ratio in _ratios(encoding.bits):
        # one puts the largest weight on a level that both sides have, the other on the one level that only one side has
        ends = ((largest * (ratio / grid.lowest),) if signed else ()) + (np.abs(largest) * (ratio / grid.highest),)
        for step in ends:
            steps = in_steps(blocks, step)
            best.offer(grid.round(steps, out=steps), best.zero)
    for _ in range(REFINEMENTS):
        best.offer(grid.round(in_steps(blocks, best.scale)), best.zero)
    return best.scale, best.zero


def asymmetric(
    blocks: np.ndarray, encoding: Blocked, clip: Clip, cost: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scales and zero points ``[blocks, 1]`` of blocks, a row each; see `symmetric`."""
    grid = encoding.grid
    top = grid.highest - grid.lowest
    low = np.minimum(blocks.min(1, keepdims=True), 0)
    high = np.maximum(blocks.max(1, keepdims=True), 0)
    if clip == "absmax":
        step = (high - low) / top
        return step, _zero(-low, step, top)
    reach = _reach(blocks)
    below, above = np.maximum(low, -reach), np.minimum(high, reach)
    step = (above - below) / top
    zero = _zero(-below, step, top)
    if clip == "statsq":
        return step, zero
    best = _Best(blocks, cost)
    best.offer(grid.round(in_steps(blocks, step), zero), zero)
    for ratio in _ratios(encoding.bits):
        for shrink_low, shrink_high in ((ratio, ratio), (ratio, 1.0), (1.0, ratio)):
            step = (high * shrink_high - low * shrink_low) / top
            zero, steps = _zero(-low * shrink_low, step, top), in_steps(blocks, step)
            best.offer(grid.round(steps, zero, out=steps), zero)
    for _ in range(REFINEMENTS):
        best.offer(grid.round(in_steps(blocks, best.scale), best.zero), best.zero)
    return best.scale, best.zero


class _Best:
    """The best scale and zero seen for each block, by the squared error that its codes would leave."""

    def __init__(self, blocks: np.ndarray, cost: np.ndarray | None) -> None:
        count = len(blocks)
        self._cost, self._wanted = cost, blocks if cost is None else blocks * cost
        self.gain = np.full((count, 1), -1.0)
        self.scale = np.zeros((count, 1), np.float32)
        self.zero = np.zeros((count, 1), np.float32)

    def offer(self, codes: np.ndarray, zero: np.ndarray) -> None:
        shared = inner(self._wanted, codes)
        scale = shared * inverse_of(inner(codes if self._cost is None else codes * self._cost, codes))
        gain = shared * scale
        better = gain > self.gain
        np.copyto(self.gain, gain, where=better)
        np.copyto(self.scale, scale, where=better, casting="same_kind")
        np.copyto(self.zero, zero, where=better)


def inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Inner products of the rows of two matrices, float64 ``[rows, 1]``."""
    total = np.zeros((len(left), 1))
    for start in range(0, left.shape[1], LONGEST_SUM):
        part = slice(start, start + LONGEST_SUM)
        total[:, 0] += np.einsum("ij,ij->i", left[:, part], right[:, part])
    return total


def _reach(blocks: np.ndarray) -> np.ndarray:
    """Twice the mean magnitude of what is not zero in each block, which may be filled up with zeros ``[blocks, 1]``.

    Source: OFQ, Liu et al. 2023 (arXiv:2302.02210), section 3.1, StatsQ.
    """
    total = np.abs(blocks).sum(1, dtype=np.float64, keepdims=True)
    count = np.count_nonzero(blocks, 1, keepdims=True)
    return np.asarray(2 * total / np.maximum(count, 1), np.float32)


def unit_of(blocks: np.ndarray) -> np.ndarray:
    """A power of two for each block that brings its largest weight near 1, so that no square over- or underflows."""
    largest = np.abs(blocks).max(1, keepdims=True)
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


def _ratios(bits: int) -> np.ndarray:
    first, last, count = RATIOS.get(bits, WIDE_RATIOS)
    return np.linspace(first, last, count, dtype=np.float32)


def inverse_of(values: np.ndarray) -> np.ndarray:
    """One over each; zero for those whose inverse would overflow."""
    inverse = np.zeros_like(values)
    np.divide(1, values, out=inverse, where=np.abs(values) >= np.finfo(values.dtype).tiny)
    return inverse


def for_each_chunk(blocks: np.ndarray, work: Callable[[slice], None]) -> None:
    """Work on some blocks at a time, in threads."""
    parts = list(_chunks(blocks))
    if len(parts) == 1:
        work(parts[0])
        return
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, parts))


def _chunks(blocks: np.ndarray) -> Iterator[slice]:
    rows = max(CHUNK // max(blocks.shape[1], 1), 1)
    for start in range(0, len(blocks), rows):
        yield slice(start, start + rows)
