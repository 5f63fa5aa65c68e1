"""Fitting what stands in for a missing part of a residual stream: a map of the value before it to the one behind it.

Rows are tokens. Each counts by what it is off in proportion to its size, so that a few large ones do not decide alone.
Some models have a massive token, often the first, a thousand times as large as the others, and all attention rests on
it: as one row among hundreds it would be mangled, so such rows together count as much as all others.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from qcc.ir.graph.ops import Array

Cure = Literal["off", "best", "gain", "low_rank", "linear"]
NARROW = 4  # times as few channels between the two products of a map of low rank as the stream has
MASSIVE = 10.0  # times the middle size of a sample's rows
WEIGHT = 1.0  # of massive rows together, beside all others
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)  # of the diagonal
FLOOR = 1e-4  # of the mean of the diagonal


@dataclass(frozen=True)
class StreamMap:
    """``y = x + x @ change + shift``, where ``x [rows, width]``.

    Args:
        kind: of map.
        ridge: that it was fitted with.
        change: ``[width, width]``.
        shift: ``[width]``.
        error: what is left of the rows' change on data held out, as a share of all of it.
        between: of a map of low rank ``[width, channels]``, the directions of what it adds, at right angles; else none.
    """

    kind: str
    ridge: float
    change: Array
    shift: Array
    error: float
    between: Array | None = None

    @property
    def matrix(self) -> Array:
        """With what passes by."""
        return np.asarray(np.eye(len(self.change)) + self.change)


class StreamSums:
    """The sums that a fit needs, of rows before and behind what is missing, with a one behind each row before."""

    def __init__(self) -> None:
        self.gram, self.pull, self.size = np.zeros((1, 1)), np.zeros((1, 0)), 0.0

    def add(self, before: Array, behind: Array) -> None:
        """Add a sample's rows ``[..., width]``."""
        x, y = (one.reshape(-1, one.shape[-1]).astype(np.float64) for one in (before, behind))
        self.take(x, y - x, row_weights(x))

    def take(self, read: Array, change: Array, weights: Array) -> None:
        """Add rows ``[rows, in]`` of what is read and ``[rows, width]`` of what is to be added, each by its weight."""
        rows = np.concatenate([read, np.ones((len(read), 1))], 1)
        gram, pull = rows.T @ (rows * weights[:, None]), rows.T @ (change * weights[:, None])
        self.gram, self.pull = (self.gram + gram, self.pull + pull) if self.size else (gram, pull)
        self.size += float(np.einsum("ij,ij,i->", change, change, weights))

    def error(self, map_: Array) -> float:
        """What a map ``[width + 1, width]`` leaves of the change, as a share of it."""
        left = self.size - 2 * np.vdot(map_, self.pull) + np.vdot(map_, self.gram @ map_)
        return float(left / self.size) if self.size else 0.0


def row_weights(x: Array) -> Array:
    """What each row of a stream counts ``[rows]``."""
    sizes = np.maximum(np.einsum("ij,ij->i", x, x), np.finfo(np.float32).tiny)
    weights = 1 / sizes
    massive = sizes > MASSIVE**2 * np.median(sizes)
    if massive.any() and not massive.all():
        weights[massive] *= WEIGHT * (~massive).sum() / massive.sum()
    return np.asarray(weights)


def fitted(seen: StreamSums, held: StreamSums, cure: Cure) -> StreamMap | None:
    """The map of a kind, or of any, that leaves least on data held out; None if none leaves less than no map.

    Source: FoldGPT, 2024 (arXiv:2407.00928), which trains what is left; here ridge regression, Hoerl and Kennard 1970.
    """
    found = [map_ for ridge in RIDGES for map_ in _maps(seen, ridge) if cure in (map_[0], "best")]
    made = [
        StreamMap(kind, ridge, whole[:-1], whole[-1], held.error(whole), between)
        for kind, ridge, whole, between in found
        if np.isfinite(whole).all()
    ]
    best = min(made, key=lambda one: one.error, default=None)
    return best if best is not None and best.error < 1 else None


def _maps(seen: StreamSums, ridge: float) -> Iterable[tuple[str, float, Array, Array | None]]:
    """A map of all channels; the same through a few of them; a gain and a shift for each channel.

    Source: for the few, reduced-rank regression, Izenman 1975: the principal components of what the whole map makes.
    """
    diagonal = np.diag(seen.gram)
    damped = seen.gram + np.diag(ridge * diagonal + FLOOR * diagonal[:-1].mean())
    whole = np.linalg.solve(damped, seen.pull)
    yield "linear", ridge, whole, None
    _, directions = np.linalg.eigh(whole.T @ seen.gram @ whole)
    between = directions[:, -max(whole.shape[1] // NARROW, 1) :]
    yield "low_rank", ridge, whole @ between @ between.T, between
    gains, shifts = _gains(damped, seen.pull)
    yield "gain", ridge, np.concatenate([np.diag(gains), shifts[None]]), None


def _gains(damped: Array, pull: Array) -> tuple[Array, Array]:
    """Two unknowns a channel."""
    square, one, cross = np.diag(damped)[:-1], damped[-1, -1], damped[:-1, -1]
    mine, theirs = np.diag(pull[:-1]), pull[-1]
    determinant = square * one - cross * cross
    return (mine * one - theirs * cross) / determinant, (theirs * square - mine * cross) / determinant
