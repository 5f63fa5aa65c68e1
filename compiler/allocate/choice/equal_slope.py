"""What weights lose together where each takes the candidate at which its loss falls by the same for a byte.

It is LPViT's answer, and the integer program's relaxation cut back to whole candidates: a price of a byte is raised
until what every weight then takes, each for itself, fits. The program is never worse; how much better it is tells
what deciding weights together was worth.

Source: LPViT, Xu et al. 2024 (arXiv:2407.02068), section 3.4; Shoham and Gersho, *Efficient bit allocation for an
arbitrary set of quantizers* (IEEE Trans. ASSP 36, 1988).
"""

from collections.abc import Sequence

import numpy as np

HALVINGS = 100  # of the price


def equal_slope(losses: Sequence[np.ndarray], sizes: Sequence[np.ndarray], room: float) -> float | None:
    """The loss at the lowest price of a byte, or of what else is bounded, at which all fit; None where nothing does.

    Args:
        losses: of each weight's candidates; infinite where one cannot be had.
        sizes: theirs.
        room: what all of them may take.
    """
    smallest = sum(float(np.min(size[np.isfinite(loss)])) for loss, size in zip(losses, sizes, strict=True))
    if smallest > room:
        return None
    low, high = 0.0, 1e-300
    while _taken(losses, sizes, high)[1] > room and high < np.finfo(np.float64).max / 2:
        low, high = high, high * 16
    if _taken(losses, sizes, low)[1] <= room:
        return _taken(losses, sizes, low)[0]
    for _ in range(HALVINGS):
        middle = float(np.sqrt(low * high)) if low else high / 2
        low, high = (low, middle) if _taken(losses, sizes, middle)[1] <= room else (middle, high)
    return _taken(losses, sizes, high)[0]


def _taken(losses: Sequence[np.ndarray], sizes: Sequence[np.ndarray], price: float) -> tuple[float, float]:
    """The loss and the bytes at a price; of equal candidates the smaller one is taken."""
    loss = taken = 0.0
    for one, size in zip(losses, sizes, strict=True):
        order = np.lexsort((size, one + price * size))
        loss += float(one[order[0]])
        taken += float(size[order[0]])
    return loss, taken
