"""What no choice of formats can lose less than, by BAQ's closed form.

Were bits of any number to be had, and a loss to fall fourfold with each bit of a weight, then all weights would lose
the same for what their last bit costs: ``b = mean + 1/2 log2(c / geometric mean of c)``, with ``c`` what a weight would
lose without any bits. Here each weight's ``c`` is the smallest that any of its candidates shows, so that every choice
loses at least that much.

Source: BAQ, Zhang et al. 2025 (arXiv:2506.05664), section 3.
"""

from collections.abc import Sequence

import numpy as np


def least_loss(
    losses: Sequence[np.ndarray], sizes: Sequence[np.ndarray], counts: Sequence[int], room_bytes: float
) -> float:
    """A bound from below of what weights lose together.

    Args:
        losses: of each weight's candidates; infinite where one cannot be had.
        sizes: theirs, in bytes.
        counts: how many numbers each weight holds.
        room_bytes: what all of them may take.
    """
    room, total, spread = 8.0 * room_bytes, 0.0, 0.0
    for loss, size, count in zip(losses, sizes, counts, strict=True):
        there = np.isfinite(loss)
        bits = 8.0 * np.asarray(size, np.float64)[there]
        with np.errstate(divide="ignore"):
            height = float(np.min(np.log2(loss[there]) / 2 + bits / count)) if count else -np.inf
        if height == -np.inf:  # it may lose nothing, and takes its least at least
            room -= float(bits.min())
            continue
        total += count
        spread += count * (height - np.log2(count) / 2)
    return float(total * 4.0 ** ((spread - room) / total)) if total else 0.0
