"""Choosing scales and codes: round-to-nearest with a clipping range searched per block.

For every block a few clipping ratios are tried; for the numbers ``q`` of the grid that a ratio gives, the best scale
has the closed form ``<w, q> / <q, q>``, so candidates compare by ``<w, q>^2 / <q, q>`` without decoding. A symmetric
grid of two's complement has one more level below zero than above: a negative scale puts it where the block needs it.
Where the encoding has no scale there is nothing to choose: a weight becomes the nearest number of the grid.

Source: OMSE clipping, Choukroun et al. 2019 (arXiv:1902.06822), section 3; least-squares scales, Hubara et al. 2020
(arXiv:2006.10518), section 3.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache, partial
from typing import Literal, TypedDict, Unpack

import numpy as np

from qcc.ir.encoding.algebra import Columns, Encoding, Fitted, Fitter, MatrixShape, Rows
from qcc.ir.encoding.blocked import Blocked, Floats
from qcc.ir.encoding.blocks import TENSOR
from qcc.ir.encoding.encoded import Encoded, Scales, check_finite, stored
from qcc.ir.encoding.grid import Grid
from qcc.ir.encoding.reference import NUMPY
from qcc.ir.errors import Refused

Clip = Literal["mse", "absmax"]
CHUNK = 1 << 16  # elements worked on at once: a few arrays of it fit a core's second-level cache
LONGEST_SUM = 4096  # float32 sums over more terms lose the differences that the search looks for
RATIOS = {2: (0.35, 1.0, 14), 3: (0.5, 1.0, 12), 4: (0.6, 1.0, 12)}  # first, last, count; wider grids clip little
WIDE_RATIOS = (0.85, 1.0, 7)
REFINEMENTS = 3  # rounds of codes from the scale, scale from the codes


def encode(matrix: np.ndarray, encoding: Encoding, clip: Clip = "mse") -> Encoded:
    """Encode a matrix ``[out, in]`` by round-to-nearest.

    Args:
        matrix: the weights.
        encoding: how to store them.
        clip: ``absmax`` covers each block's whole range, ``mse`` searches the range of least squared error.

    Raises:
        Refused: there are no weights, they are not finite, or their scale's type cannot hold their range.
    """
    return encoded(matrix, encoding, fitted(matrix, encoding, clip))


class Known(TypedDict, total=False):
    """What data may tell a `Fitter`."""

    power: np.ndarray
    sensitivity: np.ndarray
    gram: np.ndarray
    inverse: Callable[[], np.ndarray]


def encoded(matrix: np.ndarray, encoding: Encoding, found: Fitted) -> Encoded:
    """A matrix as it was fitted to an encoding."""
    return Encoded(found.settled(encoding), _shape(matrix), found.parts())


def fitted(
    matrix: np.ndarray,
    encoding: Encoding,
    clip: Clip = "mse",
    **known: Unpack[Known],
) -> Fitted:
    """A matrix ``[out, in]`` with all fixed that its codes rest on, and to nearest.

    Args:
        matrix: the weights.
        encoding: how to store them.
        clip: see `encode`.
        known: what data tells, see `Fitter`.

    Raises:
        Refused: see `encode`.
    """
    if encoding.within:
        _check(matrix)
    return encoding.fit(matrix, Fitter(partial(_leaf, clip=clip), **known))


def _leaf(matrix: np.ndarray, encoding: Encoding, clip: Clip) -> Fitted:
    if isinstance(encoding, Floats):
        return FittedFloats(matrix, encoding)
    assert isinstance(encoding, Blocked), f"{encoding.text} holds others, or fits itself"
    return FittedBlocks(matrix, encoding, fit(matrix, encoding, clip))


class FittedBlocks(Fitted):
    """Codes under fixed scales."""

    def __init__(self, matrix: np.ndarray, encoding: Blocked, scales: Scales) -> None:
        self._encoding, self._scales = encoding, scales
        self._size = encoding.block.of(_shape(matrix))
        self._codes = quantize(matrix, encoding, scales)

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """By the scale of each weight's block."""
        step, inverse, zero = self._steps
        at = columns // self._size[1], rows
        below = None if zero is None else zero[at]
        codes = self._encoding.grid.codes(values * inverse[at], below)
        self._codes[rows, columns] = codes
        return np.asarray(self._encoding.grid.numbers(codes, below) * step[at])

    def parts(self) -> dict[str, np.ndarray]:
        """Scales, zero points and codes."""
        return stored(self._encoding, self._codes, self._scales)

    @cached_property
    def _steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Scales, their inverses and zeros, float32 ``[blocks across, out]``."""
        rows, blocks = len(self._codes), self._scales.scale.shape
        at = np.arange(rows) // self._size[0]
        step, zero = self._scales.rows()
        step = np.ascontiguousarray(step.reshape(blocks)[at].T)
        return step, _inverse(step), None if zero is None else zero.reshape(blocks)[at].T.astype(np.float32, "C")


class FittedFloats(Fitted):
    """Weights as floats.

    Raises:
        Refused: the type does not reach as far.
    """

    def __init__(self, matrix: np.ndarray, encoding: Floats) -> None:
        largest = float(np.abs(matrix).max(initial=0))
        if largest > float(np.finfo(encoding.dtype).max):
            raise Refused(f"a weight of {largest:.6g} does not fit {encoding.name}")
        self._values = matrix.astype(encoding.dtype)

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """To the nearest float."""
        self._values[rows, columns] = values
        return self._values[rows, columns].astype(np.float32)

    def parts(self) -> dict[str, np.ndarray]:
        """The values."""
        return {"values": self._values}


def fit(matrix: np.ndarray, encoding: Blocked, clip: Clip = "mse") -> Scales:
    """The scales and zero points of a matrix's blocks.

    Raises:
        Refused: see `encode`.
    """
    _check(matrix)
    if encoding.scale is None:
        return _ones(matrix, encoding)
    blocks = encoding.block.split(matrix.astype(np.float32, copy=False))
    scale = np.empty((len(blocks), 1), np.float32)
    zero = np.zeros((len(blocks), 1), np.uint8)
    search = _fit_symmetric if encoding.symmetric else _fit_asymmetric

    def work(part: slice) -> None:
        unit = _unit(blocks[part])
        found, zero[part] = search(
            np.ascontiguousarray(blocks[part]) * unit, encoding, clip
        )  # sums must not follow the layout
        scale[part] = found / unit

    _for_each_chunk(blocks, work)
    shape = encoding.block.grid(_shape(matrix))
    zeros = None if encoding.symmetric else zero.reshape(shape)
    if isinstance(encoding.scales, Floats):
        return Scales(_stored(scale, encoding).reshape(shape), zeros)
    kept = coarse(scale, blocks, encoding, shape)
    return Scales(encoding.scales.decode(NUMPY, kept.__getitem__, shape), zeros, kept)


def quantize(matrix: np.ndarray, encoding: Blocked, scales: Scales) -> np.ndarray:
    """The nearest codes ``[out, in]`` under given scales."""
    blocks = encoding.block.split(matrix.astype(np.float32, copy=False))
    codes = np.empty(blocks.shape, encoding.grid.dtype)
    scale, zero = scales.rows()
    denormal = (scale != 0) & (np.abs(scale) < np.finfo(np.float32).tiny)
    if denormal.any():  # their inverses overflow
        lift = np.where(denormal, np.float32(2**64), np.float32(1))
        blocks, scale = blocks * lift, scale * lift

    def work(part: slice) -> None:
        steps = _steps(blocks[part], scale[part])
        codes[part] = encoding.grid.codes(steps, None if zero is None else zero[part])

    _for_each_chunk(blocks, work)
    return encoding.block.join(codes, (matrix.shape[0], matrix.shape[1]))


def _ones(matrix: np.ndarray, encoding: Blocked) -> Scales:
    """What an encoding without scales has in their place, if the grid reaches as far as the weights."""
    name, grid = encoding.text, encoding.grid
    largest = np.float32(np.abs(matrix).max())
    if largest > grid.highest:
        raise Refused(f"a weight of {largest:.6g} does not fit {name}, which ends at {grid.highest:.6g}")
    if largest and not grid.round(largest.reshape(1)).any():
        raise Refused(f"the largest weight, {largest:.3g}, is lost in {name}")
    return Scales(np.ones(encoding.block.grid((matrix.shape[0], matrix.shape[1])), np.float32), None)


def _fit_symmetric(blocks: np.ndarray, encoding: Blocked, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    grid = encoding.grid
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1, keepdims=True), 1)
    best = _Best(len(blocks))
    if clip == "absmax":
        return np.abs(largest) / grid.highest, best.zero
    signed = isinstance(encoding.scales, Floats)
    for ratio in _ratios(encoding.bits):
        # one puts the largest weight on a level that both sides have, the other on the one level that only one side has
        ends = ((largest * (ratio / grid.lowest),) if signed else ()) + (np.abs(largest) * (ratio / grid.highest),)
        for step in ends:
            steps = _steps(blocks, step)
            best.offer(blocks, grid.round(steps, out=steps), best.zero)
    for _ in range(REFINEMENTS):
        best.offer(blocks, grid.round(_steps(blocks, best.scale)), best.zero)
    return best.scale, best.zero


def _fit_asymmetric(blocks: np.ndarray, encoding: Blocked, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    grid = encoding.grid
    top = grid.highest - grid.lowest
    low = np.minimum(blocks.min(1, keepdims=True), 0)
    high = np.maximum(blocks.max(1, keepdims=True), 0)
    if clip == "absmax":
        step = (high - low) / top
        return step, _zero(-low, step, top)
    best = _Best(len(blocks))
    for ratio in _ratios(encoding.bits):
        for shrink_low, shrink_high in ((ratio, ratio), (ratio, 1.0), (1.0, ratio)):
            step = (high * shrink_high - low * shrink_low) / top
            zero, steps = _zero(-low * shrink_low, step, top), _steps(blocks, step)
            best.offer(blocks, grid.round(steps, zero, out=steps), zero)
    for _ in range(REFINEMENTS):
        best.offer(blocks, grid.round(_steps(blocks, best.scale), best.zero), best.zero)
    return best.scale, best.zero


class _Best:
    """The best scale and zero seen for each block, by the squared error that its codes would leave."""

    def __init__(self, count: int) -> None:
        self.gain = np.full((count, 1), -1.0)
        self.scale = np.zeros((count, 1), np.float32)
        self.zero = np.zeros((count, 1), np.float32)

    def offer(self, blocks: np.ndarray, codes: np.ndarray, zero: np.ndarray) -> None:
        inner, energy = _inner(blocks, codes), _inner(codes, codes)
        scale = inner * _inverse(energy)
        gain = inner * scale
        better = gain > self.gain
        np.copyto(self.gain, gain, where=better)
        np.copyto(self.scale, scale, where=better, casting="same_kind")
        np.copyto(self.zero, zero, where=better)


def _inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Inner products of the rows of two matrices, float64 ``[rows, 1]``."""
    total = np.zeros((len(left), 1))
    for start in range(0, left.shape[1], LONGEST_SUM):
        part = slice(start, start + LONGEST_SUM)
        total[:, 0] += np.einsum("ij,ij->i", left[:, part], right[:, part])
    return total


def _unit(blocks: np.ndarray) -> np.ndarray:
    """A power of two for each block that brings its largest weight near 1, so that no square over- or underflows."""
    largest = np.abs(blocks).max(1, keepdims=True)
    exponent = np.frexp(largest)[1]
    unit: np.ndarray = np.ldexp(np.float32(1), np.clip(-exponent, -126, 126))
    return unit


def _steps(values: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Values in steps; no steps where the step is zero."""
    steps: np.ndarray = values * _inverse(step)
    return steps


def _zero(below: np.ndarray, step: np.ndarray, top: float) -> np.ndarray:
    """The zero point under which so much lies below zero."""
    return np.asarray(np.clip(np.rint(_steps(below, step)), 0, top))


def _ratios(bits: int) -> np.ndarray:
    first, last, count = RATIOS.get(bits, WIDE_RATIOS)
    return np.linspace(first, last, count, dtype=np.float32)


def _inverse(values: np.ndarray) -> np.ndarray:
    """One over each; zero for those whose inverse would overflow."""
    inverse = np.zeros_like(values)
    np.divide(1, values, out=inverse, where=np.abs(values) >= np.finfo(values.dtype).tiny)
    return inverse


def _stored(scale: np.ndarray, encoding: Blocked) -> np.ndarray:
    limit, end, widest = np.finfo(_scale_type(encoding)), -encoding.grid.lowest, encoding.grid.widest
    largest = float(np.abs(scale).max(initial=0))
    if largest > float(limit.max) or largest * 2 * end > float(np.finfo(np.float32).max):
        raise Refused(f"a scale of {largest:.3g} does not fit {encoding.scale}" + _advice(encoding))
    # below this, rounding the scale moves the outermost code by more than half a step
    if 0 < largest < float(limit.smallest_subnormal) * end / widest:
        raise Refused(f"a scale of {largest:.3g} is lost in {encoding.scale}" + _advice(encoding))
    return scale.astype(_scale_type(encoding))


def _scale_type(encoding: Blocked) -> type[np.floating]:
    assert isinstance(encoding.scales, Floats)
    return encoding.scales.dtype


def coarse(scale: np.ndarray, blocks: np.ndarray, encoding: Blocked, shape: MatrixShape) -> dict[str, np.ndarray]:
    """Scales stored in few bits: of the two numbers beside each, the one under which its block errs less.

    Where scales are not numbers of a grid, in units of one number of their own if need be, they store themselves.

    Args:
        scale: of each block ``[blocks, 1]``, not negative.
        blocks: of weights, a row each.
        encoding: of the weights.
        shape: of the scales, blocks down and across.

    Source: the neighbours matter most where scales are powers of two: the nearest one to a good scale may clip.
    """
    kept, parts = encoding.scales, {}
    plain = isinstance(kept, Blocked) and (kept.scale is None or (kept.block == TENSOR and kept.scale == "fp32"))
    if not isinstance(kept, Blocked) or not plain or not kept.symmetric:
        return fitted(scale.reshape(shape), kept).parts()
    unit = np.float32(1)
    if kept.scale is not None:
        unit = np.float32(max(float(scale.max(initial=0)) / kept.grid.highest, float(np.finfo(np.float32).tiny)))
        parts["scale.values"] = np.full((1, 1), unit, np.float32)
    numbers = _positive(kept.grid)
    at = np.clip(np.searchsorted(numbers, scale / unit), 1, len(numbers) - 1)
    chosen = np.empty(scale.shape, np.float32)

    def work(part: slice) -> None:
        errors = [_error(blocks[part], numbers[at[part] - below] * unit, encoding) for below in (0, 1)]
        chosen[part] = numbers[np.where(errors[0] <= errors[1], at[part], at[part] - 1)]

    _for_each_chunk(blocks, work)
    return parts | {"codes": kept.grid.codes(chosen).reshape(shape)}


@lru_cache
def _positive(grid: Grid) -> np.ndarray:
    """The numbers of a grid above zero, in order."""
    numbers = np.unique(grid.numbers(np.arange(1 << grid.bits, dtype=grid.dtype)))
    return np.asarray(numbers[np.isfinite(numbers) & (numbers > 0)])


def _error(blocks: np.ndarray, step: np.ndarray, encoding: Blocked) -> np.ndarray:
    """The squared error of each block under these steps ``[blocks, 1]``."""
    unit = _unit(blocks)  # no square over- or underflows
    rounded = encoding.grid.round(_steps(blocks, step))
    rounded *= step
    rounded -= blocks
    rounded *= unit
    return _inner(rounded, rounded)


def _check(matrix: np.ndarray) -> None:
    if not matrix.size:
        raise Refused("the weight is empty")
    check_finite(matrix)


def _shape(matrix: np.ndarray) -> MatrixShape:
    return matrix.shape[0], matrix.shape[1]


def _advice(encoding: Blocked) -> str:
    return ": use scale fp32" if encoding.scale == "fp16" else ""


def _for_each_chunk(blocks: np.ndarray, work: Callable[[slice], None]) -> None:
    parts = list(_chunks(blocks))
    if len(parts) == 1:
        work(parts[0])
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, parts))


def _chunks(blocks: np.ndarray) -> Iterator[slice]:
    rows = max(CHUNK // max(blocks.shape[1], 1), 1)
    for start in range(0, len(blocks), rows):
        yield slice(start, start + rows)
