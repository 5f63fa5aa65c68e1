"""How far statistics of little data are believed."""

import numpy as np

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import TENSOR
from qcc.ir.graph.ops import Array, Kind, Weight
from qcc.passes.contract.contract import Context
from qcc.passes.contract.moments import Moments

JUDGED = 96  # rows of a weight that are rounded to choose


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


def judged_rows(count: int, encoding: Encoding) -> np.ndarray:
    """Rows to choose by: some, evenly, where each has blocks of its own."""
    lone = isinstance(encoding, Blocked) and encoding.block == TENSOR
    if lone or not encoding.rows_apart or count <= JUDGED:
        return np.arange(count)
    return np.linspace(0, count - 1, JUDGED).astype(int)


def _doubted(gram: Array, moments: Moments, doubt: float) -> Array:
    doubted = gram.copy()
    np.fill_diagonal(doubted, np.diag(gram) * gram.dtype.type(1 + doubt * moments.chance))
    return doubted


def _with_rows(weight: Weight, gram: Array) -> Array:
    """A table that is also gathered: its rows' own errors count as much as those of the layer that multiplies by it."""
    if Kind.EMBEDDING not in weight.kinds:
        return gram
    return np.asarray(gram / (float(np.mean(np.diag(gram))) or 1.0) + np.eye(len(gram), dtype=gram.dtype))
