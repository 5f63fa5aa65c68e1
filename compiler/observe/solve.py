"""Least squares over pairs of rows that were summed up: the map that takes one model's rows to the other's."""

from dataclasses import dataclass

import numpy as np

from qcc.compiler.observe.sums import PairSum
from qcc.ir.graph.ops import Array


@dataclass(frozen=True)
class LinearMap:
    """``y = x matrix + bias``, with ``matrix [in, out]`` and ``bias [out]``."""

    matrix: Array
    bias: Array


def fit_map(pairs: PairSum, ridge: float = 0.0, bias: bool = True, towards: Array | None = None) -> LinearMap:
    """The map from ``x`` to ``y`` with the least squared error, weighted as the rows are.

    Args:
        pairs: what was seen.
        ridge: how much it costs to leave ``towards``, as a share of the mean power of an input; zero takes the smallest
            of all maps that are best.
        bias: the map may add a constant, which costs nothing.
        towards: a matrix ``[in, out]`` to stay near to; by default zero.
    """
    from scipy.linalg import lstsq  # who fits no map needs none of it

    counts = 1.0 if bias else 0.0
    x, y = pairs.mean("x") * counts, pairs.mean("y") * counts
    gram = pairs.mean("xx") - np.outer(x, x)
    cross = pairs.mean("xy") - np.outer(x, y)
    start = np.zeros_like(cross) if towards is None else towards.astype(np.float64)
    damping = ridge * (float(np.mean(np.diag(gram))) or 1.0)
    step = lstsq(gram + damping * np.eye(len(gram)), cross - gram @ start, lapack_driver="gelsd")[0]
    matrix = start + step
    return LinearMap(matrix, y - x @ matrix)


def residual(pairs: PairSum, found: LinearMap) -> float:
    """The mean squared error of a map on what was seen, of all outputs together; to judge it by what is held out."""
    w, b = found.matrix, found.bias
    power = float(np.sum(pairs.mean("yy")))
    fitted = float(np.sum((pairs.mean("xx") @ w) * w)) + 2 * float(pairs.mean("x") @ w @ b) + float(b @ b)
    return power + fitted - 2 * (float(np.sum(pairs.mean("xy") * w)) + float(pairs.mean("y") @ b))
