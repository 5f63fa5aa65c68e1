"""Fitting how rows are kept to rows that were seen."""

from typing import Literal

import numpy as np

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.cached.rows import CachedRows

Channels = Literal["plain", "sorted", "balanced"]
SHARES = np.geomspace(0.1, 1, 40)  # of the range, that a search by squared error tries
FINE = 8  # bits from which on the whole range is taken: what is cut off costs more than a step
LEAST = np.float32(1e-12)


def fitted(
    rows: np.ndarray, encoding: Blocked, channels: Channels = "plain", first: int = 0, pairs: bool = False
) -> CachedRows:
    """How rows like those that were seen are kept.

    Args:
        rows: ``[heads, rows, channels]``, float32 and finite.
        encoding: what is kept.
        channels: of groups: ``sorted`` puts channels of like size side by side, ``balanced`` makes all of like size.
        first: rows that stay floats; they are none of those seen.
        pairs: see `CachedRows`.

    Raises:
        ValueError: rows are not kept so.
    """
    heads, _, width = rows.shape
    ones, zeros = np.ones((heads, width), np.float32), np.zeros((heads, width), np.float32)
    if CachedRows(encoding, zeros, ones, None, first, pairs).by_channel:
        centre, gain = _ranges(rows, encoding)
        return CachedRows(encoding, centre, gain, None, first, pairs)
    if channels == "plain" or not rows.shape[1]:
        return CachedRows(encoding, zeros, ones, None, first, pairs)
    size = np.maximum(np.sqrt(np.mean(np.square(rows), 1)), LEAST).astype(np.float32)
    if channels == "balanced":
        return CachedRows(encoding, zeros, size, None, first, pairs)
    return CachedRows(encoding, zeros, ones, np.argsort(-size, -1, kind="stable"), first, pairs)


def _ranges(rows: np.ndarray, encoding: Blocked) -> tuple[np.ndarray, np.ndarray]:
    """Centres and steps of the channels: of the least squared error where bits are few."""
    low, high = rows.min(1, initial=0), rows.max(1, initial=0)
    if encoding.symmetric:
        top = np.maximum(-low, high)
        low, high = -top, top
    levels = (1 << encoding.bits) - (2 if encoding.symmetric else 1)  # both ends the same, or one number more below
    middle = (low + high) / 2
    best = np.full(low.shape, np.inf)
    found = np.zeros_like(low), np.ones_like(low)
    for share in SHARES if encoding.bits < FINE else SHARES[-1:]:
        step = np.maximum((high - low) * np.float32(share) / levels, LEAST).astype(np.float32)
        centre = middle if encoding.symmetric else middle + step / 2
        kept = CachedRows(encoding, centre.astype(np.float32), step)
        error = np.square(kept.decode(kept.encode(rows[None]))[0] - rows).sum(1)
        better = error < best
        best = np.where(better, error, best)
        found = np.where(better, centre, found[0]), np.where(better, step, found[1])
    return found[0].astype(np.float32), found[1].astype(np.float32)
