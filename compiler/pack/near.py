"""Constants that are almost others: which ones, and the little that is to be added to those."""

from dataclasses import dataclass

import numpy as np

from qcc.compiler.pack.index import PackIndex
from qcc.compiler.pack.store import BlobStore, digest_of
from qcc.ir.graph.ops import Array
from qcc.ir.model.packed import NarrowDelta, PackSource, Rebuilt, Sparsely

MOST_RANK, MORE = 64, 8  # ranks that are looked for, and those that are drawn beside them
WORTH = 0.5  # of a constant's bytes: what takes more is stored whole
EXACT = 1e-7  # of the difference: what float32 does not tell
SEED = 0
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
    allowed = max(level * float(np.linalg.norm(array)), EXACT * float(np.linalg.norm(array)))
    most = int(WORTH * array.nbytes)
    few = _few(difference, allowed)
    narrow = _narrow(difference, allowed) if array.ndim > 1 else None
    sparse_bytes = 8 * len(few)
    narrow_bytes = most + 1 if narrow is None else 4 * (narrow[0].size + narrow[1].size)
    if min(sparse_bytes, narrow_bytes) > most:
        return None
    if sparse_bytes <= narrow_bytes:
        places = store.put(few.astype(np.int32))
        return Sparsely(near.base, places, store.put(array.reshape(-1)[few]), len(few))
    assert narrow is not None
    up, down = (part.astype(np.float32) for part in narrow)
    return NarrowDelta(near.base, store.put(up), store.put(down), up.shape[1])


def _apart(array: Array, data: Array) -> float:
    other = data.view(np.float32).reshape(array.shape)
    size = float(np.linalg.norm(array))
    if not np.isfinite(other).all() or not size:
        return float("inf")
    return float(np.linalg.norm(array - other)) / size


def _few(difference: Array, allowed: float) -> Array:
    """The places where numbers differ most, so that what is left at the others is allowed."""
    flat = np.abs(difference.reshape(-1))
    places = np.flatnonzero(flat)
    order = places[np.argsort(flat[places], kind="stable")]
    left = np.cumsum(flat[order] ** 2)
    kept = order[np.searchsorted(left, allowed**2, side="right") :]
    return np.sort(kept)


def _narrow(difference: Array, allowed: float) -> tuple[Array, Array] | None:
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
    return (span @ left[:, :rank]) * scale, scale[:, None] * right[:rank]
