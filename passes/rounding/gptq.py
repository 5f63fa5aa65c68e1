"""Rounding that lets the codes still to come make up for the errors already made."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.encoded import Encoded, Scales, stored
from qcc.ir.encoding.fit import fit, quantize
from qcc.ir.encoding.grid import Grid
from qcc.ir.graph.ops import Kind, Weight
from qcc.passes.contract.contract import Between, Context, Rounding
from qcc.passes.contract.factor import inverse_factor
from qcc.passes.rounding.nearest import Nearest

COLUMNS = 64  # columns whose mutual corrections are made before the rest of the row is touched
MORE = (1, 10, 100)  # times the damping that was asked for
JUDGED = 96  # rows of a weight that are rounded to choose
ROWS = 512  # rows are independent: threads share them, so many at a time; fewer are not worth a thread


@dataclass(frozen=True)
class Gptq(Rounding):
    """Round column by column, spreading each column's error over the columns not yet rounded.

    Minimises the error of the layer's output on calibration data, ``|X (W - Q)'|^2``, through the Gram matrix of its
    inputs. Columns are taken in the order of their inputs' power; scales are fixed beforehand, so groups stay in place.
    A weight without calibrated linear layers (a convolution, an embedding that is only gathered) is rounded to nearest.

    How far the data is trusted is decided layer by layer: a quarter of the samples is held out, and the damping that
    does best on it is taken, the one given or ten or a hundred times as much; where none does better than rounding to
    nearest, that is done. What was chosen then learns from all samples. The report says what was chosen, and how many
    rows of data there were.

    Args:
        damping: added to the Gram matrix's diagonal, as a share of its mean; larger trusts the data less.
        clip: how scales are found, see `nearest`.

    Source: GPTQ, Frantar et al. 2022 (arXiv:2210.17323), algorithm 1 and section 3.3.
    """

    uses_gram: ClassVar[bool] = True

    damping: Annotated[float, Between(0, 10)] = 0.01
    clip: Literal["mse", "absmax"] = "mse"

    def advised(self, weight: Weight, matrix: np.ndarray, encoding: Blocked, context: Context) -> tuple[Rounding, str]:
        """The damping that does best on samples held out, or rounding to nearest."""
        moments = context.moments.get(weight.name)
        if moments is None or not moments.judged or moments.gram.shape[0] != matrix.shape[1]:
            return self, ""
        seen, held = moments.seen, moments.held
        if Kind.EMBEDDING in weight.kinds:
            seen, held = _with_rows(seen), _with_rows(held)
        part = matrix[_judged_rows(matrix.shape[0], encoding)]
        scales = fit(part, encoding, self.clip)
        size = part.shape[0], part.shape[1]
        parts = stored(encoding, quantize(part, encoding, scales), scales)
        nearest = output_error(part, Encoded(encoding, size, parts), held)
        tried = list(dict.fromkeys(self.damping * more for more in MORE))
        errors = [output_error(part, _swept(part, encoding, scales, seen, one), held) for one in tried]
        best = int(np.argmin(errors))
        if not errors[best] < nearest:
            return Nearest(self.clip), "to nearest, which is better on samples held out"
        return replace(self, damping=tried[best]), f"damping {tried[best]:g}"

    def encode(self, weight: Weight, matrix: np.ndarray, encoding: Blocked, context: Context) -> Encoded:
        """Round by columns, or to nearest where there is no Gram matrix."""
        gram = context.grams.get(weight.name)
        if gram is None or gram.shape[0] != matrix.shape[1]:
            return Nearest(self.clip).encode(weight, matrix, encoding, context)
        if Kind.EMBEDDING in weight.kinds:
            gram = _with_rows(gram)
        return round_columns(matrix, encoding, gram, self.damping, self.clip)


def round_columns(
    matrix: np.ndarray, encoding: Blocked, gram: np.ndarray, damping: float, clip: Literal["mse", "absmax"]
) -> Encoded:
    """Encode a matrix ``[out, in]`` against the Gram matrix ``[in, in]`` of its inputs."""
    return _swept(matrix, encoding, fit(matrix, encoding, clip), gram, damping)


def output_error(matrix: np.ndarray, encoded: Encoded, gram: np.ndarray) -> float:
    """The noise power at a layer's output, for a matrix ``[out, in]`` and the Gram matrix of its inputs."""
    noise = encoded.decode() - matrix
    return float(np.vdot(noise @ gram, noise))


def _swept(matrix: np.ndarray, encoding: Blocked, scales: Scales, gram: np.ndarray, damping: float) -> Encoded:
    """Round by columns under given scales."""
    found = inverse_factor(gram, damping)
    order, factor = found.order, found.upper
    shape = matrix.shape[0], matrix.shape[1]
    step, zero = _spread(encoding, scales, shape)
    codes = np.empty(matrix.shape, encoding.grid.dtype)

    def work(start: int) -> None:
        part = slice(start, start + ROWS)
        values, steps = (np.ascontiguousarray(array[part, order].T, dtype=np.float32) for array in (matrix, step))
        zeros = None if zero is None else np.ascontiguousarray(zero[part, order].T, dtype=np.float32)
        codes[part, order] = _sweep(values, steps, zeros, factor, encoding.grid).T

    starts = range(0, matrix.shape[0], ROWS)
    if len(starts) == 1:
        work(0)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(work, starts))
    return Encoded(encoding, shape, stored(encoding, codes, scales))


def _judged_rows(count: int, encoding: Blocked) -> np.ndarray:
    """Rows to choose by: some, evenly, where each has blocks of its own."""
    if encoding.block.rows != 1 or count <= JUDGED:
        return np.arange(count)
    return np.linspace(0, count - 1, JUDGED).astype(int)


def _spread(encoding: Blocked, scales: Scales, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale and zero of every weight: each block's, repeated."""
    (rows, columns), blocks = encoding.block.of(shape), scales.scale.shape
    step, zeros = scales.rows()
    at = np.ix_(np.arange(shape[0]) // rows, np.arange(shape[1]) // columns)
    return step.reshape(blocks)[at], None if zeros is None else zeros.reshape(blocks)[at]


def _sweep(values: np.ndarray, step: np.ndarray, zero: np.ndarray | None, factor: np.ndarray, grid: Grid) -> np.ndarray:
    """The codes of some rows, given and returned by columns ``[in, rows]``.

    ``factor`` is the upper Cholesky factor of the inverse Gram matrix.
    """
    codes = np.empty(values.shape, grid.dtype)
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step != 0)
    for start in range(0, len(values), COLUMNS):
        end = min(start + COLUMNS, len(values))
        errors = np.empty((end - start, values.shape[1]), np.float32)
        for at in range(start, end):
            below = None if zero is None else zero[at]
            codes[at] = grid.codes(values[at] * inverse[at], below)
            error = (values[at] - grid.numbers(codes[at], below) * step[at]) / factor[at, at]
            values[at + 1 : end] -= np.multiply.outer(factor[at, at + 1 : end], error)
            errors[at - start] = error
        values[end:] -= factor[start:end, end:].T @ errors
    return codes


def _with_rows(gram: np.ndarray) -> np.ndarray:
    """A table that is also gathered: its rows' own errors count as much as those of the layer that multiplies by it."""
    return np.asarray(gram / (float(np.mean(np.diag(gram))) or 1.0) + np.eye(len(gram), dtype=gram.dtype))
