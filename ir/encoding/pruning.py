"""Which weights of a matrix may go: what losing some costs, and what is left once others have made up for it.

The error at a layer's output, ``|X (W - Q)'|^2``, is a quadratic form of each row through the Gram matrix ``G`` of the
inputs. What rows lose with some columns ``C`` is ``w_C A w_C'``, whose ``A`` says what is known of ``G``.
"""

from typing import Literal, get_args

import numpy as np

from qcc.ir.encoding.algebra import Fitter

By = Literal["magnitude", "wanda", "taylor", "obs"]
BY: tuple[By, ...] = get_args(By)
USUAL: By = "wanda"
MOST_ROUNDS = 10_000  # of exchanges
STEPS = 60  # of conjugate gradients
LEAST_GAIN = 3e-4  # of the error that a step takes away, as a share of all that is gone so far


def told(by: By, effort: int) -> str:
    """How these are spelled behind other arguments."""
    return ("" if by == USUAL else f", by = {by}") + (f", effort = {effort}" if effort else "")


def losses(matrix: np.ndarray, by: By, fitter: Fitter, tile: tuple[int, int]) -> np.ndarray:
    """What losing each tile costs, float64 ``[down, across]``; tiles at the edges are smaller.

    By ``magnitude`` it is the sum of the squares; ``wanda`` multiplies each with the power of its input; ``taylor``
    takes what the inputs of a tile have in common into account, and ``obs`` that all that stays makes up for the loss.
    Where data does not tell it is the sum of the squares.

    Source: Wanda, Sun et al. 2023 (arXiv:2306.11695), section 3; LPViT, Xu et al. 2024 (arXiv:2407.02068), section 3.2,
    with the Gram matrix in place of gradients; Optimal Brain Surgeon, Hassibi and Stork 1992, for sets of weights as in
    Optimal BERT Surgeon, Kurtic et al. 2022 (arXiv:2203.07259), equation 6.
    """
    rows, columns = tile
    starts = np.arange(0, matrix.shape[1], columns)
    damped = fitter.damped() if by in ("taylor", "obs") else None
    if damped is None or columns == 1:
        weights = _of_each(by, fitter, damped, matrix.shape[1])
        across = np.add.reduceat(np.square(matrix, dtype=np.float64) * weights, starts, axis=1)
    else:
        inverted = by == "obs"
        products = np.linalg.inv(damped) if inverted else damped
        parts = [_lost(matrix, products, slice(at, at + columns), inverted) for at in starts]
        across = np.stack(parts, axis=1)
    return np.asarray(np.add.reduceat(across, np.arange(0, matrix.shape[0], rows), axis=0))


def _of_each(by: By, fitter: Fitter, damped: np.ndarray | None, count: int) -> np.ndarray:
    """What the square of a weight costs that goes by itself, by its column."""
    if by == "magnitude":
        return np.ones(count)
    if damped is None:
        return fitter.weights(count).astype(np.float64)
    return np.asarray(1 / np.diag(np.linalg.inv(damped)) if by == "obs" else np.diag(damped))


def _lost(matrix: np.ndarray, products: np.ndarray, columns: slice, inverted: bool) -> np.ndarray:
    """What each row loses with some columns: by the products of these, or by the inverse of all of them."""
    part, form = matrix[:, columns].astype(np.float64), products[columns, columns]
    met = np.linalg.solve(form, part.T).T if inverted else part @ form
    return np.asarray(np.einsum("ij,ij->i", met, part))


def refitted(matrix: np.ndarray, stays: np.ndarray, fitter: Fitter) -> np.ndarray:
    """What stays of a matrix, moved to where the error at the output is least; as it is where no Gram matrix tells.

    Rows are independent and each may keep weights of its own: all are solved at once by conjugate gradients under the
    mask (`descended`). Each step lowers the error of every row, so that stopping early is safe.

    Args:
        matrix: float32 ``[out, in]``.
        stays: which weights do, bool ``[out, in]``.
        fitter: what data tells.

    Source: the least squares problem is that of SparseGPT, Frantar and Alistarh 2023 (arXiv:2301.00774), section 3.1.
    """
    found = np.where(stays, matrix, np.float32(0))
    damped = None if stays.all() else fitter.damped()
    if damped is None:
        return found
    return descended(matrix.astype(np.float64), found.astype(np.float64), stays, damped)


def descended(matrix: np.ndarray, start: np.ndarray, stays: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """The same from a matrix that is nought where nothing stays, by the damped products of the inputs.

    It is computed in the type of all that is given: float32 is faster, and the last bits of what was summed up on data
    move what comes out by hundreds of them.
    """
    found = start.copy()
    smooth = stays / np.diag(gram)
    left = ((matrix - found) @ gram) * stays
    step = smooth * left
    slope = _inner(left, step)
    gained = 0.0
    for _ in range(STEPS):
        pulled = (step @ gram) * stays
        length = _over(slope, _inner(step, pulled))
        found += length * step
        left -= length * pulled
        gain = float(np.sum(length * slope, dtype=np.float64))
        gained += gain
        if not gain > LEAST_GAIN * gained:
            break
        smoothed = smooth * left
        fresh = _inner(left, smoothed)
        step = smoothed + _over(fresh, slope) * step
        slope = fresh
    return np.asarray(found, np.float32)


def _inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("ij,ij->i", left, right)[:, None])


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Zero for rows that have arrived."""
    found = np.zeros_like(above)
    np.divide(above, below, out=found, where=below > np.finfo(np.float32).tiny)
    return found
