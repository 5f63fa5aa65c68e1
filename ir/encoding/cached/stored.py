"""Caches of a model that hold codes, as a file tells of them, and what is fed and returned in floats."""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, Block
from qcc.ir.encoding.cached.rows import CachedRows
from qcc.ir.encoding.grid import IntGrid

NOTE = "qcc.caches"
"""The key under which a file tells of them."""
VERSION = 1


@dataclass(frozen=True, eq=False)
class StoredCache:
    """A cache.

    Args:
        past: the input that held rows of earlier runs.
        present: the output that holds those and the new ones.
        rows: how they are kept.
    """

    past: str
    present: str
    rows: CachedRows


def coded(caches: Iterable[StoredCache], feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Feeds in which caches of floats are codes; those that are codes already stay."""
    found = dict(feeds)
    for one in caches:
        rows = found.get(one.past)
        if rows is None or rows.dtype != np.float32:
            continue
        del found[one.past]
        names, parts = one.rows.part_names(one.past), one.rows.encode(rows)
        found |= {names[part]: array for part, array in parts.items()}
    return found


def decoded(caches: Iterable[StoredCache], outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs in which caches of codes are floats, in the places of their codes."""
    parts = {
        one.present: {part: outputs[name] for part, name in one.rows.part_names(one.present).items()} for one in caches
    }
    hidden = {name for one in caches for name in one.rows.part_names(one.present).values()} - parts.keys()
    held = {one.present: one.rows for one in caches}
    return {
        name: held[name].decode(parts[name]) if name in held else array
        for name, array in outputs.items()
        if name not in hidden
    }


def note_of(caches: Iterable[StoredCache]) -> str:
    """What a file tells of its caches."""
    return json.dumps({"version": VERSION, "caches": [_told(one) for one in caches]}, separators=(",", ":"))


def of_note(text: str) -> tuple[StoredCache, ...]:
    """The caches that a file tells of; none where it tells of none that this version knows."""
    if not text:
        return ()
    found = json.loads(text)
    return tuple(map(_read, found["caches"])) if found.get("version") == VERSION else ()


def _told(one: StoredCache) -> dict[str, object]:
    rows, encoding = one.rows, one.rows.encoding
    order = None if rows.order is None else _text(rows.order.astype(np.int16))
    return {
        "past": one.past,
        "present": one.present,
        "bits": encoding.bits,
        "zeros": not encoding.symmetric,
        "group": None if rows.by_channel else rows.size,
        "scale": encoding.scale,
        "heads": rows.gain.shape[0],
        "centre": _text(rows.centre.astype(np.float32)),
        "gain": _text(rows.gain.astype(np.float32)),
        "order": order,
        "first": rows.first,
        "pairs": rows.pairs,
    }


def _read(told: Mapping[str, object]) -> StoredCache:
    heads, group = int(str(told["heads"])), told["group"]
    grid = IntGrid(int(str(told["bits"])), not told["zeros"])
    encoding = Blocked(grid, CHANNEL if group is None else Block(1, int(str(group))), str(told["scale"]))
    centre, gain = (_array(told[name], np.float32).reshape(heads, -1) for name in ("centre", "gain"))
    order = None if told["order"] is None else _array(told["order"], np.int16).astype(np.int64).reshape(heads, -1)
    rows = CachedRows(encoding, centre, gain, order, int(str(told["first"])), bool(told["pairs"]))
    return StoredCache(str(told["past"]), str(told["present"]), rows)


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _array(text: object, dtype: type[np.generic]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(str(text)), dtype)
