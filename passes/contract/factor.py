"""The factor of a damped Gram matrix's inverse: weights that read the same, and their candidates, share it."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Array

REMEMBERED_BYTES = 1 << 27  # of factors


@dataclass(frozen=True)
class Factor:
    """Of a Gram matrix whose rows and columns are in the ``order`` of falling power.

    ``upper`` is ``U`` float32 ``[in, in]`` with ``U'U`` the inverse.
    """

    order: Array
    upper: Array

    @property
    def sensitivity(self) -> Array:
        """What a squared error of each column costs once those that come later in the order have made up for it."""
        found = np.empty(len(self.order))
        found[self.order] = 1 / np.diag(self.upper).astype(np.float64) ** 2
        return found

    def solved(self, matrix: Array) -> Array:
        """A matrix ``[rows, in]`` times the inverse."""
        found = np.empty(matrix.shape, np.float32)
        found[:, self.order] = matrix[:, self.order] @ self.upper.T @ self.upper
        return found


def inverse_factor(gram: Array, damping: float, together: int = 1) -> Factor:
    """The factor of the inverse of a matrix with ``damping`` times its diagonal's mean added to the diagonal.

    Neighbouring columns stay ``together``, so many from the first on. Damping grows until there is one. The last
    results are remembered, by what is in the matrix.

    Raises:
        Refused: the matrix is not finite.
    """
    key = hashlib.blake2b(np.ascontiguousarray(gram).data).digest(), gram.dtype.str, damping, together
    return _REMEMBERED.get(key) or _REMEMBERED.put(key, _made(gram, damping, together))


class _Remembered:
    """The factors that were used last, as many as fit."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._factors: OrderedDict[object, Factor] = OrderedDict()

    def get(self, key: object) -> Factor | None:
        with self._lock:
            if key in self._factors:
                self._factors.move_to_end(key)
            return self._factors.get(key)

    def put(self, key: object, factor: Factor) -> Factor:
        with self._lock:
            self._factors[key] = factor
            while len(self._factors) > 1 and sum(one.upper.nbytes for one in self._factors.values()) > REMEMBERED_BYTES:
                self._factors.popitem(last=False)
        return factor


_REMEMBERED = _Remembered()


def _made(gram: Array, damping: float, together: int) -> Factor:
    """With the order of rows and columns reversed, the matrix's own lower factor gives that of its inverse: ``U`` is
    the inverse of ``L``, reversed again.
    """
    from scipy.linalg import lapack  # who checks a policy needs none of it

    starts = np.arange(0, len(gram), together)
    power = np.add.reduceat(np.diag(gram), starts) / np.diff([*starts, len(gram)])
    order = np.argsort(-np.repeat(power, together)[: len(gram)], kind="stable")
    wide = gram[np.ix_(order[::-1], order[::-1])].astype(np.float64)
    mean = float(np.mean(np.diag(wide))) or 1.0
    diagonal = np.where(np.diag(wide) > 0, np.diag(wide), mean)
    while np.isfinite(damping * mean):
        damped = wide.copy()
        np.fill_diagonal(damped, diagonal + damping * mean)
        lower, failed = lapack.dpotrf(damped.T, lower=1, clean=1, overwrite_a=1)  # symmetric: as LAPACK likes it
        if not failed:
            inverse, _ = lapack.dtrtri(lower, lower=1, overwrite_c=1)
            return Factor(order, np.ascontiguousarray(inverse[::-1, ::-1], dtype=np.float32))
        damping = max(10 * damping, 1e-6)
    raise Refused("the numbers that its layers read on the data are not finite")
