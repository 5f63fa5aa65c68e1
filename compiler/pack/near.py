"""Constants that are almost others: which ones, and the little that is to be added to those."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qcc.compiler.pack.index import PackIndex
from qcc.compiler.pack.store import BlobStore, digest_of
from qcc.ir.graph.ops import Array
from qcc.ir.model.packed import NarrowDelta, PackSource, Rebuilt, Sparsely, TwoBitDelta

MOST_RANK, MORE = 64, 8  # ranks that are looked for, and those that are drawn beside them
WORTH = 0.5  # of a constant's bytes: what takes more is stored whole
EXACT = 1e-7  # of the difference: what float32 does not tell
SEED = 0
MOST_LEVELS = 7  # of two bits: eight are half of what a number takes
CLIPPED = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # shares of a row's largest number that codes reach to
TRIED = 8  # constants of other names that are looked at
Layout = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class NearConstant:
    """A constant and one that it is like.

    Args:
        name: of the constant.
        base: the other's digest.
        share: the size of their difference over the constant's.
    """

    name: str
    base: str
    share: float


def find_near(source: PackSource, index: PackIndex, store: BlobStore) -> list[NearConstant]:
    """The constants of a model that are like one of the pack: of that name, or else of that shape.

    Args:
        source: the model.
        index: of the pack.
        store: its data.
    """
    by_name: dict[tuple[str, Layout], str] = {}
    by_layout: dict[Layout, list[str]] = {}
    for model in index.models.values():
        for name, one in model.constants.items():
            layout = one.dtype, one.shape
            by_name.setdefault((name, layout), one.blob)
            if one.blob not in by_layout.setdefault(layout, []):
                by_layout[layout].append(one.blob)
    found = []
    for name in source.names:
        array = None if digest_of(source.data(name)) in index.blobs else source.floats(name)
        if array is None or not np.isfinite(array).all():
            continue
        layout = source.layout(name)
        same = by_name.get((name, layout))
        others = [same] if same is not None else by_layout.get(layout, [])[:TRIED]
        nearest = min((_apart(array, store.data(key)), key) for key in others) if others else (np.inf, "")
        if nearest[0] < 1:
            found.append(NearConstant(name, nearest[1], nearest[0]))
    return found


def rebuilt(source: PackSource, store: BlobStore, near: NearConstant, level: float) -> Rebuilt | str | None:
    """How a constant becomes another with an error of a level at most: that blob itself, or with something added.

    None where storing it whole is better.
    """
    if near.share <= level:
        return near.base
    array = source.floats(near.name)
    assert array is not None
    base = store.data(near.base).view(np.float32).reshape(array.shape)
    difference = array.astype(np.float64) - base
    allowed = max(level, EXACT) * float(np.linalg.norm(array))
    ways: list[_Way | None] = [_few(near.base, array, difference, allowed)]
    if array.ndim > 1:
        ways += [_narrow(near.base, difference, allowed), _two_bits(near.base, difference, allowed)]
    best = min((one for one in ways if one is not None), key=lambda one: one.size_bytes, default=None)
    return None if best is None or best.size_bytes > WORTH * array.nbytes else best.stored(store)


@dataclass(frozen=True)
class _Way:
    """How a constant may become another.

    Args:
        parts: what is stored beside the other one.
        made: tells what it is once they are, by their digests.
    """

    parts: tuple[Array, ...]
    made: Callable[..., Rebuilt]

    @property
    def size_bytes(self) -> int:
        """Of all that is stored."""
        return sum(part.nbytes for part in self.parts)

    def stored(self, store: BlobStore) -> Rebuilt:
        """Put the parts into the pack."""
        return self.made(*map(store.put, self.parts))


def _apart(array: Array, data: Array) -> float:
    other = data.view(np.float32).reshape(array.shape)
    size = float(np.linalg.norm(array))
    if not np.isfinite(other).all() or not size:
        return float("inf")
    return float(np.linalg.norm(array - other)) / size


def _few(base: str, array: Array, difference: Array, allowed: float) -> _Way:
    """Other numbers at the places where they differ most, so that what is left at the others is allowed."""
    flat = np.abs(difference.reshape(-1))
    places = np.flatnonzero(flat)
    order = places[np.argsort(flat[places], kind="stable")]
    left = np.cumsum(flat[order] ** 2)
    kept = np.sort(order[np.searchsorted(left, allowed**2, side="right") :])
    parts = kept.astype(np.int32), array.reshape(-1)[kept]
    return _Way(parts, lambda places, values: Sparsely(base, places, values, len(kept)))


def _narrow(base: str, difference: Array, allowed: float) -> _Way | None:
    """Two factors of as few ranks as leave what is allowed; None where there are none."""
    matrix = difference.reshape(len(difference), -1)
    width = min(MOST_RANK + MORE, *matrix.shape)
    draw = np.random.default_rng(SEED).standard_normal((matrix.shape[1], width))
    span, _ = np.linalg.qr(matrix @ (matrix.T @ (matrix @ draw)))
    left, sizes, right = np.linalg.svd(span.T @ matrix, full_matrices=False)
    whole = float(np.sum(matrix**2))
    rest = np.maximum(whole - np.cumsum(sizes**2), 0)
    enough = np.flatnonzero(rest <= allowed**2 + 1e-13 * whole)
    if not len(enough) or enough[0] >= MOST_RANK:
        return None
    rank = int(enough[0]) + 1
    scale = np.sqrt(sizes[:rank])
    factors = (span @ left[:, :rank]) * scale, scale[:, None] * right[:rank]
    up, down = (part.astype(np.float32) for part in factors)
    return _Way((up, down), lambda up, down: NarrowDelta(base, up, down, rank))


def _two_bits(base: str, difference: Array, allowed: float) -> _Way | None:
    """As many levels of two bits as leave what is allowed, each a quarter of the one before; None if too many would."""
    matrix = difference.reshape(len(difference), -1)
    for count in range(1, MOST_LEVELS + 1):
        codes, step = _rounded(matrix, 4**count)
        if float(np.linalg.norm(matrix - step * (2 * codes - (4**count - 1)))) <= allowed:
            break
    else:
        return None
    levels = np.stack([codes >> 2 * at & 3 for at in reversed(range(count))], 1).astype(np.uint8)
    fours = np.pad(levels, ((0, 0), (0, 0), (0, -levels.shape[2] % 4))).reshape(*levels.shape[:2], -1, 4)
    packed = (fours << np.arange(0, 8, 2, dtype=np.uint8)).sum(3, dtype=np.uint8)
    sizes = (step[:, :, None] * 4.0 ** np.arange(count)[::-1]).astype(np.float32)
    return _Way((packed, sizes), lambda codes, sizes: TwoBitDelta(base, codes, sizes, count))


def _rounded(matrix: Array, steps: int) -> tuple[Array, Array]:
    """Codes of a number of steps around zero, and the half step of each row ``[rows, 1]`` that leaves least."""
    most = np.abs(matrix).max(1, keepdims=True)
    best, least = np.zeros_like(most), np.full_like(most, np.inf)
    for share in CLIPPED:
        half = (share * most / steps).astype(np.float32).astype(np.float64)
        left = ((matrix - half * (2 * _codes(matrix, half, steps) - (steps - 1))) ** 2).sum(1, keepdims=True)
        best, least = np.where(left < least, half, best), np.minimum(left, least)
    return _codes(matrix, best, steps), best


def _codes(matrix: Array, half: Array, steps: int) -> Array:
    scaled = np.divide(matrix, 2 * half, out=np.zeros_like(matrix), where=half > 0)
    return np.asarray(np.clip(np.floor(scaled) + steps // 2, 0, steps - 1), np.int32)
