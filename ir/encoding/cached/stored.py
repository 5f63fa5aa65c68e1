"""Caches of a model that hold codes, as a file tells of them, and what is fed and returned in floats."""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, Block
from qcc.ir.encoding.cached.kept import KeptRows
from qcc.ir.encoding.cached.rows import CachedRows
from qcc.ir.encoding.grid import IntGrid

NOTE = "qcc.caches"
"""The key under which a file tells of them."""
VERSIONS = (1, 2, 3)
"""The second tells of rows that go, the third of channels that are mixed; what came before knows nothing of them."""
TOLD_OF_ROWS = ("places", "scores")


@dataclass(frozen=True, eq=False)
class StoredCache:
    """A cache.

    Args:
        past: the input that held rows of earlier runs.
        present: the output that holds those and the new ones.
        rows: as what codes they are kept; None for floats.
        evicts: rows go where there are too many. Then an input and an output beside the keys tell the ``places`` of
            those that are there, and another one their ``scores``, both ``[batch, heads, rows]``.
        leads: it holds keys, beside which those stand.
    """

    past: str
    present: str
    rows: CachedRows | None
    evicts: KeptRows | None = None
    leads: bool = False

    def part_names(self, name: str) -> dict[str, str]:
        """What each input or output is called in the place of one of floats; the floats or codes have its name."""
        found = {"codes": name} if self.rows is None else self.rows.part_names(name)
        tells = self.evicts is not None and self.leads
        return found | ({part: f"{name}.{part}" for part in TOLD_OF_ROWS} if tells else {})

    def encode(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """All rows ``[batch, heads, rows, channels]`` of a text so far, as parts; too many leave the first and last."""
        places = np.array(np.broadcast_to(np.arange(rows.shape[2]), rows.shape[:3]))
        if self.evicts is not None and rows.shape[2] > self.evicts.budget:
            stay = self.evicts.chosen(places, places.astype(np.float32))
            rows, places = np.take_along_axis(rows, stay[..., None], 2), np.take_along_axis(places, stay, -1)
        found = {"codes": rows} if self.rows is None else self.rows.encode(rows)
        if self.evicts is None or not self.leads:
            return found
        return found | {"places": places, "scores": np.zeros(rows.shape[:3], np.float32)}

    def decode(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """The rows that parts stand for."""
        return parts["codes"] if self.rows is None else self.rows.decode(parts)


def coded(caches: Iterable[StoredCache], feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Feeds in which caches of floats are codes; those that are codes already stay."""
    found, caches = dict(feeds), list(caches)
    told = {one.past for one in caches if one.leads and f"{one.past}.places" in feeds}
    told |= {other.past for one, other in pairwise(caches) if one.past in told and not other.leads}
    for one in caches:
        rows, names = found.get(one.past), one.part_names(one.past)
        if rows is None or rows.dtype != np.float32 or (one.rows is None and one.past in told):
            continue
        del found[one.past]
        parts = one.encode(rows)
        found |= {names[part]: array for part, array in parts.items()}
    return found


def decoded(caches: Iterable[StoredCache], outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs in which caches of codes are floats, in the places of their codes."""
    parts = {one.present: {part: outputs[name] for part, name in one.part_names(one.present).items()} for one in caches}
    hidden = {name for one in caches for name in one.part_names(one.present).values()} - parts.keys()
    held = {one.present: one for one in caches}
    return {
        name: held[name].decode(parts[name]) if name in held else array
        for name, array in outputs.items()
        if name not in hidden
    }


def note_of(caches: Iterable[StoredCache]) -> str:
    """What a file tells of its caches."""
    told = [_told(one) for one in caches]
    mixed = any("mixing" in one for one in told)
    version = VERSIONS[2 if mixed else any("evicts" in one for one in told)]
    return json.dumps({"version": version, "caches": told}, separators=(",", ":"))


def of_note(text: str) -> tuple[StoredCache, ...]:
    """The caches that a file tells of; none where it tells of none that this version knows."""
    if not text:
        return ()
    found = json.loads(text)
    return tuple(map(_read, found["caches"])) if found.get("version") in VERSIONS else ()


def _told(one: StoredCache) -> dict[str, object]:
    found: dict[str, object] = {"past": one.past, "present": one.present}
    if one.evicts is not None:
        kept = one.evicts
        found["evicts"] = {"rows": kept.budget, "window": kept.window, "sinks": kept.sinks, "keys": one.leads}
    return found if one.rows is None else found | _told_of(one.rows)


def _told_of(rows: CachedRows) -> dict[str, object]:
    encoding = rows.encoding
    order = None if rows.order is None else _text(rows.order.astype(np.int16))
    mixing = {} if rows.mixing is None else {"mixing": _text(rows.mixing.astype(np.float32))}
    return mixing | {
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


def _read(told: Mapping[str, Any]) -> StoredCache:
    kept = told.get("evicts")
    evicts = None if kept is None else KeptRows(kept["rows"], kept["window"], kept["sinks"])
    rows = _rows_of(told) if "bits" in told else None
    return StoredCache(str(told["past"]), str(told["present"]), rows, evicts, bool(kept and kept["keys"]))


def _rows_of(told: Mapping[str, Any]) -> CachedRows:
    heads, group = int(str(told["heads"])), told["group"]
    grid = IntGrid(int(str(told["bits"])), not told["zeros"])
    encoding = Blocked(grid, CHANNEL if group is None else Block(1, int(str(group))), str(told["scale"]))
    centre, gain = (_array(told[name], np.float32).reshape(heads, -1) for name in ("centre", "gain"))
    order = None if told["order"] is None else _array(told["order"], np.int16).astype(np.int64).reshape(heads, -1)
    width = gain.shape[1]
    mixing = _array(told["mixing"], np.float32).reshape(heads, width, width) if "mixing" in told else None
    return CachedRows(encoding, centre, gain, order, int(str(told["first"])), bool(told["pairs"]), mixing)


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _array(text: object, dtype: type[np.generic]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(str(text)), dtype)
