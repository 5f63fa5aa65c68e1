"""Narrow factors of a matrix: the leading directions, and the best partner of a factor that is given."""

from contextlib import suppress

import numpy as np

FEW = 32  # times fewer directions than there are: found one by one
NEAR = 1e-6  # of an eigenvalue
RIDGE = 1e-6  # of the mean of a diagonal: keeps factors that repeat each other solvable


def leading(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The leading left singular vectors of a matrix, each times the root of its singular value ``[out, rank]``."""
    turned = matrix.shape[0] > matrix.shape[1]  # the Gram matrix of the shorter side has all there is
    wide = matrix.astype(np.float64)
    gram = wide.T @ wide if turned else wide @ wide.T
    squares, vectors = _largest(gram, rank)
    vectors, sizes = vectors[:, ::-1], np.sqrt(np.maximum(squares[::-1], 0))
    if turned:
        vectors = wide @ np.divide(vectors, sizes, out=np.zeros_like(vectors), where=sizes > 0)
    return np.ascontiguousarray(vectors * np.sqrt(sizes), np.float32)


def _largest(gram: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues of a Gram matrix, in rising order, and their vectors."""
    import scipy.linalg  # languages and policies do without
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    last, power = len(gram) - 1, float(np.trace(gram))
    if rank * FEW <= len(gram) and power > 0:
        start = np.random.default_rng(0).standard_normal(len(gram))
        with suppress(ArpackNoConvergence):
            squares, vectors = eigsh(gram / power, rank, v0=start, tol=NEAR)
            order = np.argsort(squares)
            return squares[order] * power, vectors[:, order]
    squares, vectors = scipy.linalg.eigh(gram, subset_by_index=(last - rank + 1, last))
    return squares, vectors


def partner(left: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The right factor ``[rank, in]`` that makes the most of a left one, whatever the columns weigh."""
    wide = left.astype(np.float64)
    gram = wide.T @ wide
    gram[np.diag_indices(len(gram))] += RIDGE * float(np.trace(gram)) / len(gram) + float(np.finfo(np.float32).tiny)
    return np.asarray(np.linalg.solve(gram, wide.T @ matrix), np.float32)
