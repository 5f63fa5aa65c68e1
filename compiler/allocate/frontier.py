"""What quality costs: the choices that lose least for their size."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

MOST_POINTS = 64
"""More than this are thinned out, the ends kept."""


def frontier(
    sizes: Sequence[np.ndarray], losses: Sequence[np.ndarray], fixed_bytes: float
) -> tuple[tuple[float, float], ...]:
    """Sizes of files with their losses, the smallest first; no choice of that size or less loses less.

    They are the corners of the convex hull of all choices: each option gives up its bytes where they gain least.
    Between two corners the best choice lies on or above the line.

    Args:
        sizes: of each option's candidates, in bytes.
        losses: of the same; they add up.
        fixed_bytes: what else is in the file.
    """
    steps: list[tuple[float, float, float]] = []
    size, loss = fixed_bytes, 0.0
    for option_sizes, option_losses in zip(sizes, losses, strict=True):
        corners = _hull(option_sizes, option_losses)
        if not corners:
            return ()
        size, loss = size + corners[0][0], loss + corners[0][1]
        for before, after in pairwise(corners):
            more, gained = after[0] - before[0], before[1] - after[1]
            steps.append((gained / more, more, gained))
    points = [(size, loss)]
    for _, more, gained in sorted(steps, reverse=True):
        size, loss = size + more, loss - gained
        points.append((size, max(loss, 0.0)))
    places = sorted({round(at) for at in np.linspace(0, len(points) - 1, min(MOST_POINTS, len(points)))})
    return tuple(points[at] for at in places)


def _hull(sizes: np.ndarray, losses: np.ndarray) -> list[tuple[float, float]]:
    """The lower convex hull of candidates from the smallest on, as far down as it goes."""
    known = sorted(
        (float(s), float(e)) for s, e in zip(sizes, losses, strict=True) if np.isfinite(s) and np.isfinite(e)
    )
    corners: list[tuple[float, float]] = []
    for size, loss in known:
        if corners and (loss >= corners[-1][1] or size == corners[-1][0]):
            continue
        while len(corners) > 1 and _above(corners[-2], corners[-1], (size, loss)):
            corners.pop()
        corners.append((size, loss))
    return corners


def _above(left: tuple[float, float], middle: tuple[float, float], right: tuple[float, float]) -> bool:
    """Whether the middle lies on or above the line between the others."""
    return (middle[1] - left[1]) * (right[0] - left[0]) >= (right[1] - left[1]) * (middle[0] - left[0])
