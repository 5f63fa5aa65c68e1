"""Choosing scales and codes: round-to-nearest with a clipping range searched per block (`search`).

Where the encoding has no scale there is nothing to choose: a weight becomes the nearest number of the grid.
"""

from collections.abc import Mapping
from functools import cached_property, lru_cache, partial

import numpy as np

from qcc.ir.encoding.algebra import LEAST_POWER, Columns, Encoding, Fitted, Fitter, MatrixShape, Rows
from qcc.ir.encoding.blocked import Blocked, Floats
from qcc.ir.encoding.blocks import TENSOR, row_by_row
from qcc.ir.encoding.encoded import Encoded, Scales, check_finite, stored
from qcc.ir.encoding.grid import Grid
from qcc.ir.encoding.reference import NUMPY
from qcc.ir.encoding.search import (
    LONGEST_COLUMN,
    BlockPart,
    Clip,
    as_it_lies,
    asymmetric,
    for_each_chunk,
    for_each_part,
    in_steps,
    inner,
    inverse_of,
    laid_out,
    symmetric,
    unit_of,
)
from qcc.ir.encoding.tables.lookups import NO_LOOKUPS, Lookups
from qcc.ir.errors import Refused

NEIGHBOURS = (-1, 0, -2, 1, -3, 2)  # of a scale, by how many numbers they are above the next larger one
COSTS_A_DOUBLING = 8
NEAR = 0.5  # doublings: what is farther off is tried only if it is next


def encode(
    matrix: np.ndarray,
    encoding: Encoding,
    clip: Clip = "mse",
    gram: np.ndarray | None = None,
    lookups: Mapping[str, Lookups] = NO_LOOKUPS,
) -> Encoded:
    """Encode a matrix ``[out, in]`` by round-to-nearest.

    Args:
        matrix: the weights.
        encoding: how to store them.
        clip: ``absmax`` covers each block's whole range, ``statsq`` twice its mean magnitude, and ``mse`` searches the
            range of least squared error.
        gram: the mean products of what two columns are multiplied with ``[in, in]``, if data tells.
        lookups: see `Fitter`.

    Raises:
        Refused: there are no weights, they are not finite, or their scale's type cannot hold their range.
    """
    return encoded(matrix, encoding, fitted(matrix, encoding, clip, gram=gram, lookups=lookups))


def encoded(matrix: np.ndarray, encoding: Encoding, found: Fitted) -> Encoded:
    """A matrix as it was fitted to an encoding."""
    return Encoded(found.settled(encoding), _shape(matrix), found.parts(), found.curve)


def fitted(
    matrix: np.ndarray,
    encoding: Encoding,
    clip: Clip = "mse",
    power: np.ndarray | None = None,
    sensitivity: np.ndarray | None = None,
    gram: np.ndarray | None = None,
    damping: float = 0.0,
    lookups: Mapping[str, Lookups] = NO_LOOKUPS,
) -> Fitted:
    """A matrix ``[out, in]`` with all fixed that its codes rest on, and to nearest.

    Args:
        matrix: the weights.
        encoding: how to store them.
        clip: see `encode`.
        power: of what each column is multiplied with, the mean square, if data tells.
        sensitivity: see `Fitter`.
        gram: the mean products of what two columns are multiplied with ``[in, in]``, whose diagonal is the power.
        damping: see `Fitter`.
        lookups: see `Fitter`.

    Raises:
        Refused: see `encode`.
    """
    if not isinstance(encoding, Blocked):
        _check(matrix)
        matrix = row_by_row(matrix)
    if power is None and gram is not None:
        power = np.diag(gram)
    return encoding.fit(matrix, Fitter(partial(_leaf, clip=clip), power, sensitivity, gram, damping, lookups))


def _leaf(matrix: np.ndarray, encoding: Encoding, fitter: Fitter, clip: Clip) -> Fitted:
    if isinstance(encoding, Floats):
        return FittedFloats(matrix, encoding)
    assert isinstance(encoding, Blocked), f"{encoding.text} holds others, or fits itself"
    return FittedBlocks(matrix, encoding, fit(matrix, encoding, clip, _column_cost(fitter)))


def _column_cost(fitter: Fitter) -> np.ndarray | None:
    """What a squared error of each column costs, as far as data tells, about one in the mean, in eighths of a doubling.

    Data tells no more of it, and where sums differ in their last bits, as another framework's or processor's do, the
    same scales are chosen.

    Source: what is left of it once other columns make up for it, Frantar et al. 2022 (arXiv:2210.17323), equation 2.
    """
    told = fitter.power if fitter.sensitivity is None else fitter.sensitivity
    if told is None or not told.any():
        return None
    costs = np.maximum(told / np.mean(told, dtype=np.float64), LEAST_POWER)
    return np.asarray(np.exp2(np.rint(np.log2(costs) * COSTS_A_DOUBLING) / COSTS_A_DOUBLING), np.float32)


class FittedBlocks(Fitted):
    """Codes under fixed scales."""

    def __init__(self, matrix: np.ndarray, encoding: Blocked, scales: Scales) -> None:
        self._encoding, self._scales = encoding, scales
        self._size = encoding.block.of(_shape(matrix))
        self._codes = quantize(matrix, encoding, scales)

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """By the scale of each weight's block."""
        step, inverse, zero = self.in_steps
        at = columns // self._size[1], rows
        below = None if zero is None else zero[at]
        codes = self._encoding.grid.codes(values * inverse[at], below)
        self._codes[rows, columns] = codes
        return np.asarray(self._encoding.grid.numbers(codes, below) * step[at])

    def parts(self) -> dict[str, np.ndarray]:
        """Scales, zero points and codes."""
        return stored(self._encoding, self._codes, self._scales)

    def rescaled(self, matrix: np.ndarray, gains: np.ndarray) -> "FittedBlocks | None":
        """A matrix to nearest with the scales of each row multiplied; None where they are no floats, or span rows.

        Args:
            matrix: the weights ``[out, in]``.
            gains: positive, ``[out]``.
        """
        kept = self._encoding
        if kept.scale is None or not isinstance(kept.scales, Floats) or kept.block.rows != 1 or kept.block == TENSOR:
            return None
        with np.errstate(over="ignore", under="ignore"):
            scale = (self._scales.scale.astype(np.float32) * gains[:, None]).astype(self._scales.scale.dtype)
        lost = ~np.isfinite(scale) | ((scale == 0) & (self._scales.scale != 0))
        scale = np.where(lost, self._scales.scale, scale)
        return FittedBlocks(matrix, kept, Scales(scale, self._scales.zero))

    @cached_property
    def in_steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Scales, their inverses and zeros, float32 ``[blocks across, out]``."""
        rows, blocks = len(self._codes), self._scales.scale.shape
        at = np.arange(rows) // self._size[0]
        step, zero = self._scales.rows()
        step = np.ascontiguousarray(step.reshape(blocks)[at].T)
        return step, inverse_of(step), None if zero is None else zero.reshape(blocks)[at].T.astype(np.float32, "C")


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


def fit(matrix: np.ndarray, encoding: Blocked, clip: Clip = "mse", cost: np.ndarray | None = None) -> Scales:
    """The scales and zero points of a matrix's blocks.

    Args:
        matrix: the weights ``[out, in]``.
        encoding: how to store them.
        clip: see `encode`.
        cost: of a squared error in each column ``[in]``, positive; None if all cost the same.

    Raises:
        Refused: see `encode`.
    """
    _check(matrix)
    if encoding.scale is None:
        return _ones(matrix, encoding)
    block, shape = encoding.block, _shape(matrix)
    size, grid = block.of(shape), block.grid(shape)
    along = 0 if size[0] * size[1] <= LONGEST_COLUMN else 1
    matrix = matrix.astype(np.float32, copy=False)
    blocks = block.apart(block.filled(matrix if along == 0 else row_by_row(matrix)))
    scale, zero = (np.empty_like(blocks[:, :1, :, :1], one) for one in (np.float32, np.uint8))
    search = symmetric if encoding.symmetric else asymmetric
    each = None if cost is None else np.broadcast_to(cost, (size[0], shape[1]))
    held = (
        blocks,
        scale,
        zero,
        *(() if each is None else (np.broadcast_to(block.apart(block.filled(each)), blocks.shape),)),
    )
    lying = as_it_lies(*held)

    def work(part: BlockPart) -> None:
        some, its_scale, its_zero, *costs = (one[part[0], :, part[1]] for one in lying)
        laid = laid_out(some, along)
        unit = unit_of(laid, along)
        found, zeros = search(laid * unit, encoding, clip, laid_out(costs[0], along) if costs else None, along)
        its_scale[...], its_zero[...] = (found / unit).reshape(its_scale.shape), zeros.reshape(its_zero.shape)

    for_each_part(lying[0], work)
    scale, zeros = scale[:, 0, :, 0], None if encoding.symmetric else zero[:, 0, :, 0]
    if isinstance(encoding.scales, Floats):
        return Scales(_stored(scale, encoding), zeros)
    costs = None if each is None else block.split(each)
    kept = coarse(scale.reshape(-1, 1), block.split(row_by_row(matrix)), encoding, grid, costs)
    return Scales(encoding.scales.decode(NUMPY, kept.__getitem__, grid), zeros, kept)


def quantize(matrix: np.ndarray, encoding: Blocked, scales: Scales) -> np.ndarray:
    """The nearest codes ``[out, in]`` under given scales, in memory as the matrix is."""
    block = encoding.block
    whole = block.filled(matrix.astype(np.float32, copy=False))
    codes = np.empty_like(whole, encoding.grid.dtype)
    blocks = block.apart(whole)
    step = scales.scale.astype(np.float32).reshape(block.grid(_shape(matrix)))[:, None, :, None]
    denormal = (step != 0) & (np.abs(step) < np.finfo(np.float32).tiny)
    lift = np.where(denormal, np.float32(2**64), np.float32(1)) if denormal.any() else None  # inverses overflow
    zero = None if scales.zero is None else scales.zero.reshape(step.shape[::2])[:, None, :, None]
    lying = as_it_lies(blocks, block.apart(codes), step, *(one for one in (zero, lift) if one is not None))

    def work(part: BlockPart) -> None:
        some, into, steps, *more = (one[part[0], :, part[1]] for one in lying)
        if lift is not None:
            some, steps = some * more[-1], steps * more[-1]
        into[...] = encoding.grid.codes(in_steps(some, steps), None if zero is None else more[0])

    for_each_part(lying[0], work)
    cut = codes[: matrix.shape[0], : matrix.shape[1]]
    return cut if whole.shape == matrix.shape else np.copy(cut, order="K")


def _ones(matrix: np.ndarray, encoding: Blocked) -> Scales:
    """What an encoding without scales has in their place, if the grid reaches as far as the weights."""
    name, grid = encoding.text, encoding.grid
    largest = np.float32(np.abs(matrix).max())
    if largest > grid.highest:
        raise Refused(f"a weight of {largest:.6g} does not fit {name}, which ends at {grid.highest:.6g}")
    if largest and not grid.round(largest.reshape(1)).any():
        raise Refused(f"the largest weight, {largest:.3g}, is lost in {name}")
    return Scales(np.ones(encoding.block.grid((matrix.shape[0], matrix.shape[1])), np.float32), None)


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


def coarse(
    scale: np.ndarray, blocks: np.ndarray, encoding: Blocked, shape: MatrixShape, costs: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Scales stored in few bits: of the numbers beside each, the one under which its block errs least.

    Both neighbours are tried, and where numbers lie close some more.

    Where scales are not numbers of a grid, in units of one number of their own if need be, they store themselves.

    Args:
        scale: of each block ``[blocks, 1]``, not negative where scales have no sign.
        blocks: of weights, a row each.
        encoding: of the weights.
        shape: of the scales, blocks down and across.
        costs: of a squared error of each weight, of the blocks across ``[across, block size]``; None if all cost the
            same.

    Source: the neighbours matter most where scales are powers of two: the nearest one to a good scale may clip.
    """
    kept, parts = encoding.scales, {}
    plain = isinstance(kept, Blocked) and (kept.scale is None or (kept.block == TENSOR and kept.scale == "fp32"))
    if not isinstance(kept, Blocked) or not plain or not kept.symmetric:
        return fitted(scale.reshape(shape), kept).parts()
    unit, size = np.float32(1), np.abs(scale)
    if kept.scale is not None:
        unit = np.float32(max(float(size.max(initial=0)) / kept.grid.highest, float(np.finfo(np.float32).tiny)))
        parts["scale.values"] = np.full((1, 1), unit, np.float32)
    numbers = _positive(kept.grid)
    if kept.scale is None:
        _check_reach(float(size.max(initial=0)), numbers, encoding)
    wanted, sign = size / unit, np.where(scale < 0, np.float32(-1), np.float32(1))
    above = np.clip(np.searchsorted(numbers, wanted), 1, len(numbers) - 1)
    chosen = np.empty(scale.shape, np.float32)

    def work(part: slice) -> None:
        best = np.full((len(blocks[part]), 1), np.inf)
        cost = None if costs is None else costs[np.arange(*part.indices(len(blocks))) % shape[1]]
        for offset in NEIGHBOURS:
            number = numbers[np.clip(above[part] + offset, 0, len(numbers) - 1)]
            near = np.abs(np.log2(number / np.maximum(wanted[part], numbers[0]))) < NEAR
            if offset not in (-1, 0) and not near.any():
                continue
            error = _error(blocks[part], number * sign[part] * unit, encoding, cost)
            better = error < best
            np.copyto(best, error, where=better)
            np.copyto(chosen[part], number * sign[part], where=better)

    for_each_chunk(blocks, work)
    return parts | {"codes": kept.grid.codes(chosen).reshape(shape)}


def _check_reach(largest: float, numbers: np.ndarray, encoding: Blocked) -> None:
    """See that the largest of some scales is about a number of those, in order, that it may become."""
    if largest > numbers[-1]:
        raise Refused(f"a scale of {largest:.3g} does not fit {encoding.scale}: use scale fp32")
    if 0 < largest < numbers[0] / 2:
        raise Refused(f"a scale of {largest:.3g} is lost in {encoding.scale}: use scale fp32")


@lru_cache
def _positive(grid: Grid) -> np.ndarray:
    """The numbers of a grid above zero, in order."""
    numbers = np.unique(grid.numbers(np.arange(1 << grid.bits, dtype=grid.dtype)))
    return np.asarray(numbers[np.isfinite(numbers) & (numbers > 0)])


def _error(blocks: np.ndarray, step: np.ndarray, encoding: Blocked, costs: np.ndarray | None) -> np.ndarray:
    """What the squared error of each block under these steps costs ``[blocks, 1]``."""
    unit = unit_of(blocks, 1)  # no square over- or underflows
    rounded = encoding.grid.round(in_steps(blocks, step))
    rounded *= step
    rounded -= blocks
    rounded *= unit
    return inner(rounded if costs is None else rounded * costs, rounded)[:, None]


def _check(matrix: np.ndarray) -> None:
    if not matrix.size:
        raise Refused("the weight is empty")
    check_finite(matrix)


def _shape(matrix: np.ndarray) -> MatrixShape:
    return matrix.shape[0], matrix.shape[1]


def _advice(encoding: Blocked) -> str:
    return ": use scale fp32" if encoding.scale == "fp16" else ""
