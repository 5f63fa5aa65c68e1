"""How far what calibration saw of a weight's inputs is to be trusted."""

import numpy as np

from qcc.ir.graph.ops import Kind, Weight
from qcc.passes.contract.contract import Context
from qcc.passes.contract.moments import Moments


def trusted_gram(weight: Weight, context: Context) -> np.ndarray | None:
    """The Gram matrix of a weight's inputs, as far as it is to be trusted; None if there is none."""
    gram = context.grams.get(weight.name)
    return None if gram is None else trusted(weight, gram, context.moments.get(weight.name))


def trusted(weight: Weight, gram: np.ndarray, moments: Moments | None = None) -> np.ndarray:
    """A Gram matrix with as much more on its diagonal as chance may have put beside it: of few rows, little is left.

    Of a table that is also gathered, its rows' own errors count as much as those of the layer that multiplies by it.

    Args:
        weight: whose inputs it is of.
        gram: the matrix.
        moments: how many rows it is of; None for what judges, which is taken as it is.
    """
    if moments is not None:
        doubted = gram.copy()
        np.fill_diagonal(doubted, np.diag(gram) * gram.dtype.type(1 + moments.chance))
        gram = doubted
    if Kind.EMBEDDING in weight.kinds:
        gram = gram / (float(np.mean(np.diag(gram))) or 1.0) + np.eye(len(gram), dtype=gram.dtype)
    return np.asarray(gram)
