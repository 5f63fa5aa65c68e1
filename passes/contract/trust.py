"""How far statistics of little data are believed."""

from dataclasses import dataclass, replace

import numpy as np

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import TENSOR
from qcc.ir.graph.ops import Array, Kind, Weight
from qcc.passes.contract.contract import Context
from qcc.passes.contract.factor import inverse_factor
from qcc.passes.contract.moments import Moments

JUDGED = 96  # rows of a weight that are rounded to choose
UNSEEN = 8  # rows of data: a mean square of so few is known to about a half


def trusted(weight: Weight, matrix: np.ndarray, context: Context, doubt: float) -> Array | None:
    """The Gram matrix of what a weight's layers read, as far as it is believed; None if there is none of its size.

    The diagonal is raised by as much as chance alone may have put beside it: of few rows, little is left.

    Args:
        weight: the layers' own.
        matrix: of the weight, ``[out, in]``.
        context: the statistics.
        doubt: 1 for all that chance may have put there, a share for less.
    """
    gram = context.grams.get(weight.name)
    if gram is None or gram.shape[0] != matrix.shape[1]:
        return None
    moments = context.moments.get(weight.name)
    return _with_rows(weight, gram if moments is None else _doubted(gram, moments, doubt))


def judging(weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> Moments | None:
    """The moments of what a weight's layers read, where a part can judge what was learned from the other."""
    moments = None if encoding.sources else context.moments.get(weight.name)
    judged = moments is not None and moments.judged and moments.gram.shape[0] == matrix.shape[1]
    return moments if judged else None


def seen_by(weight: Weight, moments: Moments, doubt: float) -> Array:
    """The Gram matrix to learn from, as far as it is believed."""
    return _with_rows(weight, _doubted(moments.seen, moments, doubt))


def held_by(weight: Weight, moments: Moments) -> Array:
    """The Gram matrix to judge by."""
    return _with_rows(weight, moments.held)


def aimed(weight: Weight, matrix: Array, context: Context, gram: Array, damping: float) -> Array:
    """What a matrix must become to do on compressed inputs what there is to be done; as it is on the float model's own.

    Args:
        weight: whose matrix it is.
        matrix: of the weight, ``[out, in]``.
        context: the statistics.
        gram: of the inputs, as far as it is believed.
        damping: added to the diagonal of ``gram``: the more, the less the matrix moves.

    Source: GPTAQ, Li et al. 2025 (arXiv:2504.02692), section 3, in closed form.
    """
    moments = context.moments.get(weight.name)
    return matrix if moments is None else _aimed(matrix, gram, moments.pull, damping)


def _aimed(matrix: Array, gram: Array, pull: Array | None, damping: float) -> Array:
    return matrix if pull is None else np.asarray(matrix + inverse_factor(gram, damping).solved(pull))


@dataclass(frozen=True)
class JudgedRows:
    """Rows of a weight, with what they are rounded by to choose, and what judges the choice.

    Args:
        matrix: the rows ``[rows, in]``.
        gram: of the inputs that are not held out, as far as it is believed.
        moments: of the weight, whose pulls are those of the rows.
        held: the Gram matrix to judge by.
    """

    matrix: Array
    gram: Array
    moments: Moments
    held: Array

    def aimed(self, damping: float) -> Array:
        """See `aimed`, by the samples that are not held out."""
        return _aimed(self.matrix, self.gram, self.moments.seen_pull, damping)

    def lost(self, decoded: Array) -> float:
        """The noise power at the output on samples held out, or what this differs by from that of the rows as they are.

        Where inputs are compressed they lose something by themselves; what makes up for that loses less than nothing.
        """
        noise, pull = decoded - self.matrix, self.moments.held_pull
        power = float(np.vdot(noise @ self.held, noise))
        return power if pull is None else power - 2 * float(np.vdot(noise, pull))


def judged(weight: Weight, matrix: Array, encoding: Encoding, moments: Moments, doubt: float) -> JudgedRows:
    """Some rows of a matrix to choose by, where a part of the data judges what was learned from the other."""
    rows = judged_rows(matrix.shape[0], encoding)
    pulls = [None if one is None else one[rows] for one in (moments.pull, moments.held_pull)]
    some = replace(moments, pull=pulls[0], held_pull=pulls[1])
    return JudgedRows(matrix[rows], seen_by(weight, moments, doubt), some, held_by(weight, moments))


def judged_rows(count: int, encoding: Encoding) -> np.ndarray:
    """Rows to choose by: some, evenly, where each has blocks of its own."""
    lone = isinstance(encoding, Blocked) and encoding.block == TENSOR
    if lone or not encoding.rows_apart or count <= JUDGED:
        return np.arange(count)
    return np.linspace(0, count - 1, JUDGED).astype(int)


def _doubted(gram: Array, moments: Moments, doubt: float) -> Array:
    """With powers drawn to their mean, as if so many rows more had told nothing, and raised by what chance may do."""
    doubted, power, unseen = gram.copy(), np.diag(gram), doubt * UNSEEN
    rows = max(moments.rows - moments.repeated_rows, 1)
    drawn = (rows * power + unseen * np.mean(power)) / (rows + unseen)
    np.fill_diagonal(doubted, drawn * gram.dtype.type(1 + doubt * moments.chance))
    return doubted


def _with_rows(weight: Weight, gram: Array) -> Array:
    """A table that is also gathered: its rows' own errors count as much as those of the layer that multiplies by it."""
    if Kind.EMBEDDING not in weight.kinds:
        return gram
    return np.asarray(gram / (float(np.mean(np.diag(gram))) or 1.0) + np.eye(len(gram), dtype=gram.dtype))
