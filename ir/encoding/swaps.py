"""Exchanging what stays of a matrix for what is gone, as long as that lowers the error at the layer's output.

Rows of tiles are independent, so in each round every one of them tries some exchanges, or every pair of them one, and
keeps them where its own error is lower once all that stays has been fitted anew. No clock and no chance is asked: more
rounds go on where fewer end.
"""

import time

import numpy as np

from qcc.ir.encoding.algebra import Fitter
from qcc.ir.encoding.pruning import descended, refitted

FIRST = 8  # of what stays in a row, one in so many is exchanged at first
REST = 8  # rounds for which an exchange that failed by itself is not tried again
Curve = tuple[tuple[float, float], ...]
"""Of a search: seconds, and the error at the layer's output by then, squared, over the squares of the output."""
LEAST = 1e-5  # by which a row's error falls, as a share of it


def exchanged(
    matrix: np.ndarray, stays: np.ndarray, tile: tuple[int, int], every: int, fitter: Fitter, effort: int
) -> tuple[np.ndarray, np.ndarray, Curve]:
    """Which tiles stay, the matrix that is meant then: what stays, fitted anew; and how rounds came to it.

    An exchange is promising where what one tile takes off the error, all others as they are, is above what another
    adds to it, all others as they would have to be; when none is left, where all others help both.

    Args:
        matrix: float32 ``[out, in]``.
        stays: which tiles do at first, bool ``[down, across]``.
        tile: rows and columns of one; those at the edges are smaller.
        every: of so many neighbours across as many stay as before; 0 where only all of them count.
        fitter: what data tells; where it tells nothing, nothing is exchanged.
        effort: rounds.

    Source: iCBS, Rosenberg et al. 2024 (arXiv:2411.17796), for the block coordinate descent over what stays; what an
    exchange is expected to gain is by Optimal Brain Surgeon, see `pruning.losses`.
    """
    whole = stays.repeat(tile[0], 0).repeat(tile[1], 1)[: matrix.shape[0], : matrix.shape[1]]
    damped = fitter.damped() if effort and not stays.all() else None
    if damped is None:
        return stays, refitted(matrix, whole, fitter), ()
    start = time.perf_counter()
    search = _Search(matrix, stays, tile, every, damped)
    curve = [(time.perf_counter() - start, search.error)]
    for _ in range(effort):
        goes_on = search.go()
        curve.append((time.perf_counter() - start, search.error))
        if not goes_on:
            break
    meant = np.ascontiguousarray(search.meant[: matrix.shape[0], : matrix.shape[1]])
    return search.stays[:, : stays.shape[1]], meant, tuple(curve)


class _Search:
    """Tiles that stay, the matrix that is meant, and how far rows of tiles have come.

    All is filled up to whole tiles and whole runs of ``every`` tiles, with weights and inputs that are nought.
    """

    def __init__(
        self, matrix: np.ndarray, stays: np.ndarray, tile: tuple[int, int], every: int, damped: np.ndarray
    ) -> None:
        self._rows, self._columns, self._every = *tile, every or stays.shape[1]
        down, across = stays.shape[0], -(-stays.shape[1] // self._every) * self._every
        self._ways = [self._within] if every or down == 1 else [self._between, self._within]
        self.stays = np.pad(stays, ((0, 0), (0, across - stays.shape[1])))
        filled = down * tile[0], across * tile[1]
        self._matrix = np.pad(matrix, [(0, size - had) for size, had in zip(filled, matrix.shape, strict=True)])
        products = np.eye(filled[1])
        products[: len(damped), : len(damped)] = damped
        self._gram = products.astype(np.float32)
        inverse = self._own(np.linalg.inv(products))
        self._cost, self._gains = np.linalg.inv(inverse), [np.linalg.inv(self._own(products)), inverse]
        self.meant = self._fitted(self._matrix, self.stays)
        self._errors = self._of_rows(self.meant)
        self._most = np.maximum(self.stays.sum(1) // FIRST, 1)  # exchanges that a row tries at once
        self._rests = np.zeros(self.stays.shape, np.intp)  # until which round a tile is left alone
        self._turn = 0
        self._signal = float(np.vdot(self._matrix @ self._gram, self._matrix)) or 1.0

    @property
    def error(self) -> float:
        """What the layer is off by, as a share of what it makes, by the products that the search goes by."""
        return float(self._errors.sum(dtype=np.float64)) / self._signal

    def go(self) -> bool:
        """One round; False if nothing is promising any more."""
        comes, goes, partner = self._promising()
        while not comes.any() and len(self._gains) > 1:
            del self._gains[0]
            self._most[:] = np.maximum(self.stays.sum(1) // FIRST, 1)
            comes, goes, partner = self._promising()
        trial = (self.stays | comes) & ~goes
        meant = self._fitted(self.meant, trial)
        errors = self._of_rows(meant)
        paired = partner != np.arange(len(partner))
        had, has = (one + np.where(paired, one[partner], 0) for one in (self._errors, errors))
        better = has < had * (1 - LEAST)
        self._turn += 1
        alone = ~better & (paired | (self._most == 1))
        self._rests[(comes | goes) & alone[:, None]] = self._turn + REST
        self._most[~better & ~paired] = np.maximum(self._most[~better & ~paired] // 2, 1)
        self.stays[better], self._errors[better] = trial[better], errors[better]
        self.meant[better.repeat(self._rows)] = meant[better.repeat(self._rows)]
        return bool(comes.any())

    def _promising(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tiles that come and those that go, and with which row each goes along; of the next way that has some."""
        free = self._rests <= self._turn
        pull = (self._matrix - self.meant) @ self._gram
        gain = np.where(free & ~self.stays, self._each(pull, self._gains[0]), -np.inf)
        cost = np.where(free & self.stays, self._each(self.meant, self._cost), np.inf)
        for _ in self._ways:
            self._ways.append(self._ways.pop(0))
            found = self._ways[-1](gain, cost)
            if found[0].any():
                break
        return found

    def _between(self, gain: np.ndarray, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows in pairs, of which one gets a tile and the other gives one: those with the largest sums get."""
        comes, goes = np.zeros((2, *gain.shape), bool)
        partner = np.arange(len(gain))
        most, least = gain.max(1), cost.min(1)
        with np.errstate(invalid="ignore"):
            order = np.argsort(np.nan_to_num(-(most + least), posinf=np.inf, neginf=-np.inf), kind="stable")
        gets, gives = order[: len(order) // 2], order[::-1][: len(order) // 2]
        pays = most[gets] > least[gives]
        gets, gives = gets[pays], gives[pays]
        comes[gets, gain[gets].argmax(1)] = True
        goes[gives, cost[gives].argmin(1)] = True
        partner[gets], partner[gives] = gives, gets
        return comes, goes, partner

    def _within(self, gain: np.ndarray, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs within runs of a row, the most promising ones."""
        runs = len(gain), -1, self._every
        gain, cost = gain.reshape(runs), cost.reshape(runs)
        coming, going = np.argsort(-gain, 2, kind="stable"), np.argsort(cost, 2, kind="stable")
        worth = np.take_along_axis(gain, coming, 2) - np.take_along_axis(cost, going, 2)
        flat = worth.reshape(len(worth), -1)
        places = np.argsort(np.argsort(-flat, 1, kind="stable"), 1, kind="stable")
        taken = ((places < self._most[:, None]) & (flat > 0)).reshape(worth.shape)
        found = np.zeros((2, *worth.shape), bool)
        for marks, tiles in zip(found, (coming, going), strict=True):
            np.put_along_axis(marks, tiles, taken, 2)
        comes, goes = found.reshape(2, *self.stays.shape)
        return comes, goes, np.arange(len(comes))

    def _own(self, products: np.ndarray) -> np.ndarray:
        """The products of the columns of each tile among themselves ``[across, columns, columns]``."""
        size, count = self._columns, len(products) // self._columns
        return products.reshape(count, size, count, size)[np.arange(count), :, np.arange(count)]

    def _each(self, values: np.ndarray, forms: np.ndarray) -> np.ndarray:
        """The form of each tile's rows, added up ``[down, across]``."""
        tiles = values.reshape(len(self.stays), self._rows, -1, self._columns)
        return np.asarray(np.einsum("drac,ace,drae->da", tiles, forms, tiles, optimize=True))

    def _fitted(self, start: np.ndarray, stays: np.ndarray) -> np.ndarray:
        whole = stays.repeat(self._rows, 0).repeat(self._columns, 1)
        return descended(self._matrix, np.where(whole, start, np.float32(0)), whole, self._gram)

    def _of_rows(self, meant: np.ndarray) -> np.ndarray:
        """The error of each row of tiles."""
        off = meant - self._matrix
        return np.asarray(np.einsum("ij,ij->i", off @ self._gram, off).reshape(len(self.stays), -1).sum(1))
