"""Rounding that lets the codes still to come make up for the errors already made."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np

from qcc.ir.encoding.algebra import Encoding, Fitted
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import TENSOR
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.fit import Known, encoded, fitted
from qcc.ir.graph.ops import Kind, Weight
from qcc.passes.contract.contract import Between, Context, Rounding
from qcc.passes.contract.factor import damped_gram, inverse_factor
from qcc.passes.contract.moments import Moments
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
    An encoding that is made of others is rounded in one sweep, too: each column as its band says, each level of a sum
    what those before left, and what is no part of a kept block is an error that the columns still to come make up for.
    A weight without calibrated linear layers (a convolution, an embedding that is only gathered) is rounded to nearest.

    The fewer the rows of data, the less they are trusted: the diagonal is raised by as much as chance alone spreads the
    eigenvalues of ``n`` inputs over so many rows, ``2 √γ + γ`` of itself with ``γ = n / rows``. Without data in plenty
    it comes close to rounding to nearest. Beyond that a quarter of the samples is held out, and the damping that does
    best on it is taken layer by layer, the one given or ten or a hundred times as much; where none does better than
    rounding to nearest, that is done. What was chosen then learns from all samples. The report says what was chosen,
    and how many rows of data there were.

    Args:
        damping: added to the Gram matrix's diagonal, as a share of its mean; larger trusts the data less.
        clip: how scales are found, see `nearest`.

    Source: GPTQ, Frantar et al. 2022 (arXiv:2210.17323), algorithm 1 and section 3.3; the spread of eigenvalues is
    Marchenko and Pastur's (1967).
    """

    uses_gram: ClassVar[bool] = True

    damping: Annotated[float, Between(0, 10)] = 0.01
    clip: Literal["mse", "absmax"] = "mse"

    def advised(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> tuple[Rounding, str]:
        """The damping that does best on samples held out, or rounding to nearest."""
        moments = context.moments.get(weight.name)
        if moments is None or not moments.judged or moments.gram.shape[0] != matrix.shape[1]:
            return self, ""
        seen, held = _doubted(moments.seen, moments), moments.held
        if Kind.EMBEDDING in weight.kinds:
            seen, held = _with_rows(seen), _with_rows(held)
        part = matrix[_judged_rows(matrix.shape[0], encoding)]
        found = _fitted(part, encoding, seen, self.damping, self.clip)
        if found.fixed:
            return self, ""
        nearest = output_error(part, encoded(part, encoding, found), held)
        tried = list(dict.fromkeys(self.damping * more for more in MORE))
        errors = []
        for one in tried:
            _sweep(part, found, seen, one)
            errors.append(output_error(part, encoded(part, encoding, found), held))
        best = int(np.argmin(errors))
        if not errors[best] < nearest:
            return Nearest(self.clip), "to nearest, which is better on samples held out"
        return replace(self, damping=tried[best]), f"damping {tried[best]:g}"

    def encode(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> Encoded:
        """Round by columns, or to nearest where there is no Gram matrix."""
        gram = context.grams.get(weight.name)
        if gram is None or gram.shape[0] != matrix.shape[1]:
            return Nearest(self.clip).encode(weight, matrix, encoding, context)
        if (moments := context.moments.get(weight.name)) is not None:
            gram = _doubted(gram, moments)
        if Kind.EMBEDDING in weight.kinds:
            gram = _with_rows(gram)
        return round_columns(matrix, encoding, gram, self.damping, self.clip)


def round_columns(
    matrix: np.ndarray, encoding: Encoding, gram: np.ndarray, damping: float, clip: Literal["mse", "absmax"]
) -> Encoded:
    """Encode a matrix ``[out, in]`` against the Gram matrix ``[in, in]`` of its inputs."""
    found = _fitted(matrix, encoding, gram, damping, clip)
    if not found.fixed:
        _sweep(matrix, found, gram, damping)
    return encoded(matrix, encoding, found)


def output_error(matrix: np.ndarray, stored: Encoded, gram: np.ndarray) -> float:
    """The noise power at a layer's output, for a matrix ``[out, in]`` and the Gram matrix of its inputs."""
    noise = stored.decode() - matrix
    return float(np.vdot(noise @ gram, noise))


def _fitted(
    matrix: np.ndarray, encoding: Encoding, gram: np.ndarray, damping: float, clip: Literal["mse", "absmax"]
) -> Fitted:
    """With all fixed that codes rest on, by what data tells."""
    factor = inverse_factor(gram, damping)
    known = Known(power=np.diag(gram), sensitivity=factor.sensitivity)
    if encoding.within:  # which may leave weights out
        known |= Known(gram=damped_gram(gram, damping), inverse=factor.inverse)
    return fitted(matrix, encoding, clip, **known)


def _judged_rows(count: int, encoding: Encoding) -> np.ndarray:
    """Rows to choose by: some, evenly, where each has blocks of its own."""
    lone = isinstance(encoding, Blocked) and encoding.block == TENSOR
    if lone or not encoding.rows_apart or count <= JUDGED:
        return np.arange(count)
    return np.linspace(0, count - 1, JUDGED).astype(int)


def _sweep(matrix: np.ndarray, found: Fitted, gram: np.ndarray, damping: float) -> None:
    """Round by columns under fixed scales."""
    factor, matrix = inverse_factor(gram, damping), found.meant(matrix)
    order, columns = factor.order, factor.order.tolist()

    def work(start: int) -> None:
        part = slice(start, min(start + ROWS, matrix.shape[0]))
        _sweep_rows(np.ascontiguousarray(matrix[part, order].T, dtype=np.float32), found, part, columns, factor.upper)

    starts = range(0, matrix.shape[0], ROWS)
    if len(starts) == 1:
        work(0)
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, starts))


def _sweep_rows(values: np.ndarray, found: Fitted, rows: slice, columns: list[int], factor: np.ndarray) -> None:
    """Round some rows, given by columns ``[in, rows]`` in this order.

    ``factor`` is the upper Cholesky factor of the inverse Gram matrix.
    """
    for start in range(0, len(values), COLUMNS):
        end = min(start + COLUMNS, len(values))
        errors = np.empty((end - start, values.shape[1]), np.float32)
        for at in range(start, end):
            error = (values[at] - found.round(rows, columns[at], values[at])) / factor[at, at]
            values[at + 1 : end] -= np.multiply.outer(factor[at, at + 1 : end], error)
            errors[at - start] = error
        values[end:] -= factor[start:end, end:].T @ errors


def _doubted(gram: np.ndarray, moments: Moments) -> np.ndarray:
    """A Gram matrix with as much more on its diagonal as chance may have put beside it: of few rows, little is left."""
    doubted = gram.copy()
    np.fill_diagonal(doubted, np.diag(gram) * gram.dtype.type(1 + moments.chance))
    return doubted


def _with_rows(gram: np.ndarray) -> np.ndarray:
    """A table that is also gathered: its rows' own errors count as much as those of the layer that multiplies by it."""
    return np.asarray(gram / (float(np.mean(np.diag(gram))) or 1.0) + np.eye(len(gram), dtype=gram.dtype))
