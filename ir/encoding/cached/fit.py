"""Fitting how rows are kept to rows that were seen."""

from dataclasses import replace
from typing import Literal

import numpy as np

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.cached.rows import CachedRows

Channels = Literal["plain", "sorted", "balanced", "mixed"]
SHARES = np.geomspace(0.1, 1, 40)  # of the range, that a search by squared error tries
FINE = 8  # bits from which on the whole range is taken: what is cut off costs more than a step
LEAST = np.float32(1e-12)
RIDGE = 1e-3  # of the mean variance of channels: directions in which data shows next to nothing


def fitted(
    rows: np.ndarray,
    encoding: Blocked,
    channels: Channels = "plain",
    first: int = 0,
    pairs: bool = False,
    seen: np.ndarray | None = None,
) -> CachedRows:
    """How rows like those that were seen are kept.

    Args:
        rows: ``[heads, rows, channels]``, float32 and finite.
        encoding: what is kept.
        channels: of groups: ``sorted`` puts channels of like size side by side, ``balanced`` makes all of like size.
            Of all encodings ``mixed`` multiplies rows by a matrix, see `mixing`.
        first: rows that stay floats; they are none of those seen.
        pairs: see `CachedRows`.
        seen: of ``mixed``, by what errors are seen: the products of numbers that rows are multiplied with, on average,
            ``[heads, channels, channels]``. None where all channels are seen alike.

    Raises:
        ValueError: rows are not kept so.
    """
    heads, _, width = rows.shape
    ones, zeros = np.ones((heads, width), np.float32), np.zeros((heads, width), np.float32)
    plain = CachedRows(encoding, zeros, ones, None, first, pairs)
    if channels == "mixed" and rows.shape[1]:
        return _mixed(rows, plain, seen)
    if plain.by_channel:
        centre, gain = _ranges(rows, encoding)
        return CachedRows(encoding, centre, gain, None, first, pairs)
    if channels == "plain" or not rows.shape[1]:
        return CachedRows(encoding, zeros, ones, None, first, pairs)
    size = np.maximum(np.sqrt(np.mean(np.square(rows), 1)), LEAST).astype(np.float32)
    if channels == "balanced":
        return CachedRows(encoding, zeros, size, None, first, pairs)
    return CachedRows(encoding, zeros, ones, np.argsort(-size, -1, kind="stable"), first, pairs)


def _mixed(rows: np.ndarray, plain: CachedRows, seen: np.ndarray | None) -> CachedRows:
    own = np.broadcast_to(np.eye(rows.shape[2]), (rows.shape[0], *2 * rows.shape[2:])) if seen is None else seen
    matrix = np.stack([mixing(of, by) for of, by in zip(rows, own, strict=True)])
    turned = rows @ matrix
    centre, gain = turned.mean(1), plain.gain
    if plain.by_channel:
        more, gain = _ranges(turned - centre[:, None], plain.encoding)
        centre = centre + more
    return replace(plain, centre=centre, gain=gain, mixing=matrix)


def mixing(rows: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """A matrix for a head's rows ``[rows, channels]``, behind which all channels are alike and errors cost least.

    Where each channel is rounded by a step in proportion to its size, what is seen of the errors is the sum over
    channels of the variance of rows times the power of what sees them, ``diag(A' C A) diag(inv(A) M inv(A)')``. One
    that makes both diagonal and alike, and then spreads them evenly over channels, brings the sum down to
    ``(sum of the roots of the eigenvalues of C M) ** 2 / channels``, the least that there is by Cauchy's inequality.

    Args:
        rows: float32.
        seen: the mean products ``M`` of what they are multiplied with, ``[channels, channels]``.
    """
    width = rows.shape[1]
    centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    spread, power = (_ridged(one) for one in (centred.T @ centred / len(rows), seen.astype(np.float64)))
    values, vectors = np.linalg.eigh(spread)
    root = np.sqrt(np.maximum(values, 0))
    half, inverse = (vectors * root) @ vectors.T, (vectors / root) @ vectors.T
    common, turn = np.linalg.eigh(half @ power @ half)
    alike = inverse @ turn * np.maximum(common, LEAST) ** 0.25
    angle = 2 * np.pi / width * np.outer(np.arange(width), np.arange(width))
    even = (np.cos(angle) + np.sin(angle)) / np.sqrt(width)  # Hartley's: orthonormal, and its own inverse
    return np.asarray(alike @ even, np.float32)


def _ridged(matrix: np.ndarray) -> np.ndarray:
    mean = max(float(np.trace(matrix)) / len(matrix), float(LEAST))
    return np.asarray(matrix + RIDGE * mean * np.eye(len(matrix)))


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
