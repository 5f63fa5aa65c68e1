"""A forest of regression trees on what a line leaves over.

A tree cannot go on beyond what it has seen, nor between: a line through the features goes first, by least squares, and
the trees learn the rest. Each tree sees samples drawn with replacement, each split some of the features.

Source: random forests, Breiman 2001 (10.1023/A:1010933404324); for products of matrices, a GEMM performance model
(arXiv:2411.16954).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TREES, LEAST, DEEPEST = 100, 3, 14
SHARE = 0.6  # of the features that a split may take
RIDGE = 1e-6


@dataclass(frozen=True)
class _Tree:
    """Nodes side by side: a leaf has the feature -1."""

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The values of samples ``[sample, feature]``."""
        at = np.zeros(len(x), np.intp)
        while (inner := self.feature[at] >= 0).any():
            goes = x[np.arange(len(x)), self.feature[at].clip(0)] <= self.threshold[at]
            at = np.where(inner, np.where(goes, self.left[at], self.right[at]), at)
        return self.value[at]


@dataclass(frozen=True)
class Forest:
    """A line and its trees; the same data gives the same forest."""

    line: np.ndarray
    trees: tuple[_Tree, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """What is foretold of samples ``[sample, feature]``."""
        rest = np.mean([tree(x) for tree in self.trees], axis=0)
        found: np.ndarray = _with_one(x) @ self.line + rest
        return found


def fitted_forest(x: np.ndarray, y: np.ndarray, trees: int = TREES) -> Forest:
    """A forest.

    Args:
        x: features ``[sample, feature]``.
        y: what is to be foretold.
        trees: how many.
    """
    ones = _with_one(x)
    line = np.linalg.solve(ones.T @ ones + RIDGE * len(x) * np.eye(ones.shape[1]), ones.T @ y)
    rest, random = y - ones @ line, np.random.default_rng(0)
    drawn = (random.integers(0, len(x), len(x)) for _ in range(trees))
    return Forest(line, tuple(_tree(x[some], rest[some], random) for some in drawn))


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _tree(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> _Tree:
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    value: list[float] = []
    todo: list[tuple[np.ndarray, int, int, int]] = [(np.arange(len(x)), 0, -1, 0)]
    while todo:
        rows, depth, parent, side = todo.pop()
        at = len(feature)
        if parent >= 0:
            (left if side == 0 else right)[parent] = at
        split = _split(x[rows], y[rows], random) if depth < DEEPEST and len(rows) >= 2 * LEAST else None
        feature.append(-1 if split is None else split[0])
        threshold.append(0.0 if split is None else split[1])
        left.append(-1)
        right.append(-1)
        value.append(float(y[rows].mean()))
        if split is not None:
            goes = x[rows, split[0]] <= split[1]
            todo += [(rows[goes], depth + 1, at, 0), (rows[~goes], depth + 1, at, 1)]
    return _Tree(*(np.array(one) for one in (feature, threshold, left, right, value)))


def _split(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> tuple[int, float] | None:
    """The feature and the threshold that leave least squares; None where none leaves less."""
    best: tuple[int, float] | None = None
    most = 1e-12
    count = len(y)
    whole = y.sum() ** 2 / count
    for at in random.permutation(x.shape[1])[: max(int(SHARE * x.shape[1]), 1)]:
        order = np.argsort(x[:, at], kind="stable")
        values, sums = x[order, at], np.cumsum(y[order])
        ends = np.arange(LEAST, count - LEAST + 1)
        ends = ends[values[ends - 1] < values[ends]]
        if not len(ends):
            continue
        gains = sums[ends - 1] ** 2 / ends + (sums[-1] - sums[ends - 1]) ** 2 / (count - ends) - whole
        top = int(np.argmax(gains))
        if gains[top] > most:
            most = float(gains[top])
            best = int(at), float((values[ends[top] - 1] + values[ends[top]]) / 2)
    return best


def accuracy(found: Sequence[float] | np.ndarray, wanted: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Of logarithms that were foretold: the share of their variance (R2), and the median relative error of times."""
    off = np.asarray(found) - np.asarray(wanted)
    spread = np.asarray(wanted) - np.mean(wanted)
    score = 1 - float(off @ off) / max(float(spread @ spread), 1e-30)
    return score, float(np.median(np.abs(np.expm1(off))))
