"""Rows of a matrix that are near each other, in as many clusters as are asked for."""

import numpy as np

ROUNDS = 20
MANY = 4096  # rows: beyond, they are parted coarsely first
PART = 2048  # rows of a part, about
CHUNK = 1 << 24  # distances that are compared at once


def kmeans(points: np.ndarray, count: int, often: np.ndarray | None = None) -> np.ndarray:
    """A number below ``count`` for each row of ``points [rows, size]``: of the nearest of as many centres.

    Where nothing tells how often rows are looked up, they start in the clusters of Ward's method, which does better
    with many small ones than centres that are drawn; else the centres start where rows are looked up most, as those of
    rare rows lie about anywhere. Many rows are parted coarsely first, and each part gets centres by what it still has
    to lose.

    Args:
        points: the rows, finite.
        count: of the centres, at most that of the rows.
        often: how often each is looked up.
    """
    wide = points.astype(np.float32) / np.float32(np.abs(points).max(initial=0) or 1)
    rows = len(wide)
    if count >= rows:
        return np.arange(rows)
    if count == 1:
        return np.zeros(rows, np.int64)
    if rows <= MANY:
        return _lloyd(wide, _started(wide, count, often))
    alike = _alike(wide)
    if 0 <= int(alike.max()) < count - 1:
        return _beside(alike, wide, count, often)
    parts = min(-(-rows // PART), count)
    coarse = _lloyd(wide, wide[np.sort(np.random.default_rng(0).permutation(rows)[:parts])])
    found, start = np.empty(rows, np.int64), 0
    for part, share in enumerate(_shares(wide, coarse, parts, count)):
        members = np.flatnonzero(coarse == part)
        found[members] = start + kmeans(wide[members], share, None if often is None else often[members])
        start += share
    return found


def _alike(points: np.ndarray) -> np.ndarray:
    """A number from 0 on for equal rows that are more than a part, which nothing parts; -1 for others."""
    whole = np.ascontiguousarray(points + np.float32(0)).view(np.dtype((np.void, points.shape[1] * 4)))[:, 0]
    _, which, counts = np.unique(whole, return_inverse=True, return_counts=True)
    return np.where(counts > PART, np.cumsum(counts > PART) - 1, -1)[which.reshape(-1)]


def _beside(alike: np.ndarray, points: np.ndarray, count: int, often: np.ndarray | None) -> np.ndarray:
    """Clusters of rows of which those that are alike have one each."""
    found, others = alike.copy(), np.flatnonzero(alike < 0)
    taken = int(alike.max()) + 1
    share = min(count - taken, len(others))
    found[others] = taken + kmeans(points[others], share, None if often is None else often[others])
    _fill(found, np.zeros(len(points), np.float32), count)
    return found


def _started(points: np.ndarray, count: int, often: np.ndarray | None) -> np.ndarray:
    """The centres to start from."""
    if often is not None:
        return points[np.argsort(-often, kind="stable")[:count]]
    from scipy.cluster import hierarchy  # languages and policies do without

    labels = hierarchy.fcluster(hierarchy.linkage(points, "ward"), count, "maxclust") - 1
    return means(points, labels, count, np.ones(len(points)))


def means(matrix: np.ndarray, labels: np.ndarray, count: int, weights: np.ndarray) -> np.ndarray:
    """The mean of the rows of each label, float32 ``[count, size]``; a single row stays as it is to the bit.

    Args:
        matrix: the rows.
        labels: of each, below ``count``.
        count: of the labels.
        weights: what each row counts; where all of a label count nothing, all count alike.
    """
    total = np.bincount(labels, weights, minlength=count)
    weights = np.where(total[labels] > 0, weights, 1.0)
    total = np.bincount(labels, weights, minlength=count)
    order = np.argsort(labels, kind="stable")
    found = np.zeros((count, matrix.shape[1]), np.float32)
    used, starts = np.unique(labels[order], return_index=True)
    shares = (weights / total[labels])[order]
    summed = np.add.reduceat(matrix[order] * shares[:, None], starts, axis=0)
    found[used] = summed
    alone = np.flatnonzero(np.bincount(labels, minlength=count)[labels] == 1)
    found[labels[alone]] = matrix[alone]
    return found


def _shares(points: np.ndarray, coarse: np.ndarray, parts: int, count: int) -> list[int]:
    """How many centres each part gets: by its spread, at least one and at most as many as it has rows."""
    sizes = np.bincount(coarse, minlength=parts)
    centres = means(points, coarse, parts, np.ones(len(points)))
    spread = np.bincount(coarse, ((points - centres[coarse]) ** 2).sum(1, dtype=np.float64), minlength=parts)
    wanted = np.sqrt(spread * sizes) if spread.any() else sizes.astype(np.float64)
    least = np.minimum(sizes, 1)
    found, left = least.copy(), count - int(least.sum())
    while left > 0 and (room := sizes - found).any():
        open_ = np.where(room > 0, wanted, 0)
        open_ = open_ if open_.any() else (room > 0).astype(np.float64)
        more = np.minimum(np.floor(open_ / open_.sum() * left).astype(np.int64), room)
        if not more.any():
            more = np.zeros_like(found)
            more[np.argsort(-open_, kind="stable")[: min(left, int((open_ > 0).sum()))]] = 1
            more = np.minimum(more, room)
        found += more
        left -= int(more.sum())
    return [int(one) for one in found]


def _lloyd(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    labels, count = np.full(len(points), -1), len(centres)
    for _ in range(ROUNDS):
        fresh, distance = _nearest(points, centres)
        _fill(fresh, distance, count)
        if np.array_equal(fresh, labels):
            break
        labels = fresh
        centres = means(points, labels, count, np.ones(len(points)))
    return labels


def _nearest(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of each row, and the squared distance."""
    labels, distance = np.empty(len(points), np.int64), np.empty(len(points), np.float32)
    half = np.einsum("ij,ij->i", centres, centres) / 2
    step = max(CHUNK // len(centres), 1)
    for start in range(0, len(points), step):
        part = points[start : start + step]
        near = half - part @ centres.T
        labels[start : start + step] = at = near.argmin(1)
        distance[start : start + step] = np.einsum("ij,ij->i", part, part) + 2 * near[np.arange(len(part)), at]
    return labels, distance


def _fill(labels: np.ndarray, distance: np.ndarray, count: int) -> None:
    """Give each centre that is nobody's the row that is farthest from its own, in place."""
    sizes = np.bincount(labels, minlength=count)
    empty = np.flatnonzero(sizes == 0)
    if not len(empty):
        return
    free = iter(empty)
    for row in np.argsort(-distance, kind="stable"):
        if sizes[labels[row]] > 1:
            at = next(free, None)
            if at is None:
                return
            sizes[labels[row]] -= 1
            labels[row], sizes[at] = at, 1
