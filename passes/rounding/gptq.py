"""Rounding that lets the codes still to come make up for the errors already made."""

from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.cores import cores
from qcc.ir.encoding.algebra import Encoding, Fitted, inside
from qcc.ir.encoding.encoded import Encoded, remainder
from qcc.ir.encoding.fit import encoded, fitted
from qcc.ir.encoding.search import Clip
from qcc.ir.graph.ops import Weight
from qcc.passes.contract.contract import Between, Context, Rounding
from qcc.passes.contract.factor import inverse_factor
from qcc.passes.contract.trust import aimed, judged, judging, trusted
from qcc.passes.rounding.nearest import Nearest

COLUMNS = 64  # columns whose mutual corrections are made before the rest of the row is touched
MORE = (1, 10, 100)  # times the damping that was asked for
WORSE = 1.1  # what a whole sum may lose so that each of its levels stands by itself
ROWS = 512  # rows are independent: threads share them, so many at a time; fewer are not worth a thread


@dataclass(frozen=True)
class Gptq(Rounding):
    """Round column by column, spreading each column's error over the columns not yet rounded.

    Minimises the error of the layer's output on calibration data, ``|X (W - Q)'|^2``, through the Gram matrix of its
    inputs. Columns are taken in the order of their inputs' power; scales are fixed beforehand, so groups stay in place,
    and searched for the least of what errors cost that columns still to come cannot make up for.
    An encoding that is made of others is rounded in one sweep, too: each column as its band says, and what is no part
    of a kept block is an error that the columns still to come make up for. A sum is swept level by level, each with
    what those before it left, unless all of it in one sweep is better by more than a tenth.
    Of a convolution the rows are windows of its input, up to 64 of a sample. A weight of neither (a grouped or
    transposed convolution, an embedding that is only gathered) is rounded to nearest.

    The fewer the rows of data, the less they are trusted: the diagonal is raised by as much as chance alone spreads the
    eigenvalues of ``n`` inputs over so many rows, ``2 √γ + γ`` of itself with ``γ = n / rows``. Without data in plenty
    it comes close to rounding to nearest. Beyond that a quarter of the samples is held out, and the damping that does
    best on it is taken layer by layer, the one given or ten or a hundred times as much; where none does better than
    rounding to nearest, that is done. What was chosen then learns from all samples. The report says what was chosen,
    and how many rows of data there were.

    Args:
        damping: added to the Gram matrix's diagonal, as a share of its mean; larger trusts the data less.
        clip: how scales are found, see `nearest`.
        doubt: of what chance may have put beside the diagonal, how much is added to it. Samples held out are like those
            that were seen, and would always ask for less: it is not chosen by them.

    Source: GPTQ, Frantar et al. 2022 (arXiv:2210.17323), algorithm 1 and section 3.3; the spread of eigenvalues is
    Marchenko and Pastur's (1967).
    """

    uses_gram: ClassVar[bool] = True

    damping: Annotated[float, Between(0, 10)] = 0.01
    clip: Clip = "mse"
    doubt: Annotated[float, Between(0, 10)] = 1.0

    def advised(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> tuple[Rounding, str]:
        """The damping that does best on samples held out, or rounding to nearest."""
        moments = judging(weight, matrix, encoding, context)
        if moments is None:
            return self, ""
        by = judged(weight, matrix, encoding, moments, self.doubt)
        chosen = encoding.stays is not None and len(encoding.summands) < 2
        if chosen:  # which takes longer than all else: the same weights stay, whatever the damping
            plain = fitted_to(by.aimed(self.damping), encoding, by.gram, self.damping, self.clip)
        else:
            plain = fitted(by.matrix, encoding, self.clip, gram=by.gram)
        if plain.fixed:
            return self, ""
        nearest = by.lost(encoded(by.matrix, encoding, plain).decode())
        tried = list(dict.fromkeys(self.damping * more for more in MORE))
        errors = []
        for one in tried:
            if chosen:
                sweep(by.aimed(one), plain, by.gram, one)
                rounded = encoded(by.matrix, encoding, plain)
            else:
                rounded = round_columns(by.aimed(one), encoding, by.gram, one, self.clip)
            errors.append(by.lost(rounded.decode()))
        best = int(np.argmin(errors))
        if not errors[best] < nearest:
            return Nearest(self.clip), "to nearest, which is better on samples held out"
        return replace(self, damping=tried[best]), f"damping {tried[best]:g}"

    def encode(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> Encoded:
        """Round by columns, or to nearest where there is no Gram matrix."""
        gram = trusted(weight, matrix, context, self.doubt)
        if gram is None or encoding.sources:  # which goes by rows
            return Nearest(self.clip).encode(weight, matrix, encoding, context)
        meant = aimed(weight, matrix, context, gram, self.damping)
        return round_columns(meant, encoding, gram, self.damping, self.clip)


def round_columns(
    matrix: np.ndarray,
    encoding: Encoding,
    gram: np.ndarray,
    damping: float,
    clip: Clip,
) -> Encoded:
    """Encode a matrix ``[out, in]`` against the Gram matrix ``[in, in]`` of its inputs.

    A sum is rounded level by level, each as good as it gets by itself, so that it stands without those behind it;
    all levels in one sweep where the whole is much the worse for that.

    Args:
        matrix: the weights.
        encoding: how to store them.
        gram: of their inputs.
        damping: added to its diagonal.
        clip: how scales are found.
    """
    found = fitted_to(matrix, encoding, gram, damping, clip)
    if not found.fixed:
        sweep(matrix, found, gram, damping)
    together = encoded(matrix, encoding, found)
    if len(encoding.summands) < 2:
        return together
    apart = _round_levels(matrix, encoding, gram, damping, clip)
    errors = [output_error(matrix, one, gram) for one in (apart, together)]
    return apart if errors[0] <= WORSE * errors[1] else together


def _round_levels(matrix: np.ndarray, encoding: Encoding, gram: np.ndarray, damping: float, clip: Clip) -> Encoded:
    parts: dict[str, np.ndarray] = {}
    settled: list[Encoding] = []
    left = matrix
    for at, level in enumerate(encoding.summands):
        one = round_columns(left, level, gram, damping, clip)
        left = remainder(left, one.decode(), matrix)
        parts |= inside(one.parts, str(at))
        settled.append(one.encoding)
    return Encoded(encoding.summing(tuple(settled)), (matrix.shape[0], matrix.shape[1]), parts)


def output_error(matrix: np.ndarray, stored: Encoded, gram: np.ndarray) -> float:
    """The noise power at a layer's output, for a matrix ``[out, in]`` and the Gram matrix of its inputs."""
    noise = stored.decode() - matrix
    return float(np.vdot(noise @ gram, noise))


def fitted_to(matrix: np.ndarray, encoding: Encoding, gram: np.ndarray, damping: float, clip: Clip) -> Fitted:
    """With all fixed that codes rest on, by what data tells."""
    return fitted(matrix, encoding, clip, None, inverse_factor(gram, damping).sensitivity, gram, damping)


def sweep(matrix: np.ndarray, found: Fitted, gram: np.ndarray, damping: float) -> None:
    """Round by columns under fixed scales."""
    factor, matrix = inverse_factor(gram, damping, found.width), found.meant(matrix)
    order, columns = factor.order, factor.order.tolist()

    def work(part: slice) -> None:
        _sweep_rows(np.ascontiguousarray(matrix[part, order].T, dtype=np.float32), found, part, columns, factor.upper)

    by_rows(matrix.shape[0], work)


def by_rows(count: int, work: Callable[[slice], None]) -> None:
    """Do something for all of so many rows, a part at a time, in threads where there are enough."""
    parts = [slice(start, min(start + ROWS, count)) for start in range(0, count, ROWS)]
    if len(parts) == 1:
        work(parts[0])
        return
    with futures.ThreadPoolExecutor(cores()) as pool:
        list(pool.map(work, parts))


def _sweep_rows(values: np.ndarray, found: Fitted, rows: slice, columns: list[int], factor: np.ndarray) -> None:
    """Round some rows, given by columns ``[in, rows]`` in this order.

    ``factor`` is the upper Cholesky factor of the inverse Gram matrix.
    """
    step = COLUMNS if len(values) % found.width == 0 else len(values)  # no tuple lies across the end of a step
    for start in range(0, len(values), step):
        end = min(start + step, len(values))
        errors = np.empty((end - start, values.shape[1]), np.float32)
        for at in range(start, end):
            if found.width == 1:
                rounded = found.round(rows, columns[at], values[at])
            else:
                if columns[at] % found.width == 0:  # the columns of a tuple follow each other
                    size = min(found.width, len(columns) - columns[at])
                    first, several = at, found.round_tuple(rows, columns[at], values[at : at + size])
                rounded = several[at - first]
            error = (values[at] - rounded) / factor[at, at]
            values[at + 1 : end] -= np.multiply.outer(factor[at, at + 1 : end], error)
            errors[at - start] = error
        values[end:] -= factor[start:end, end:].T @ errors
