"""Finding the positions that an attention mask hides, and the rows of captured values that are about them.

A mask is known by what the graph does with it. Where it hides a position, the position's content reaches no other
position; so other content is put there, and the rows that change are the hidden ones, wherever and in whatever layout
they come out. An input of zeros and ones that tells kinds of tokens does not pass: what stands at its zeros is seen
everywhere.

Where the rows that change on a few samples lie as the mask itself does, the mask tells them on all others. And where a
model makes the same of feeds whose hidden end is cut off, it is cut off: what nobody looks at need not be computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from qcc.compiler.calibrate.generate import Batch
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array

CHANGED = 1e-6  # of a row's largest number: what is hidden has no effect at all on what is in sight


@dataclass(frozen=True)
class Mask:
    """An input ``[batch, positions]``, with axes of one between if need be, of which one number hides.

    ``contents`` names the inputs that say what stands at the positions.
    """

    name: str
    hides: int
    contents: tuple[str, ...]

    def hidden(self, feeds: Batch) -> Array:
        """Which positions of some feeds are hidden ``[batch, positions]``."""
        return np.asarray(flat(feeds[self.name]) == self.hides)

    def lifted(self, feeds: Batch) -> Batch:
        """The feeds with nothing hidden."""
        return {**feeds, self.name: np.full_like(feeds[self.name], 1 - self.hides)}


class RowLayout(StrEnum):
    """How the rows of a value lie, where a mask lies ``[batch, positions]``."""

    WHOLE = "whole"  # no row is about hidden positions alone
    SAMPLES = "[batch, positions]"
    POSITIONS = "[positions, batch]"
    FLAT = "[batch * positions]"
    TURNED = "[positions * batch]"

    def spread(self, told: Array, shape: tuple[int, ...]) -> Array | None:
        """What is told of positions ``[batch, positions]``, for rows; None if a value of that shape does not lie so."""
        turned = told.T if self in (RowLayout.POSITIONS, RowLayout.TURNED) else told
        if self is RowLayout.WHOLE:
            return np.ones(shape, told.dtype)
        if self in (RowLayout.FLAT, RowLayout.TURNED):
            turned = turned.reshape(-1)
        wide = turned.reshape(*turned.shape, *[1] * (len(shape) - turned.ndim))
        return np.broadcast_to(wide, shape) if shape[: turned.ndim] == turned.shape else None


@dataclass(frozen=True)
class Hiding:
    """The masks of a model, and the values of which no row is about hidden positions alone.

    ``layouts`` tells by value how rows lie beside each mask, where that is known. ``ends`` are the axes of inputs that
    can be cut behind the last position that a mask, by its place, leaves in sight.
    """

    masks: tuple[Mask, ...] = ()
    mixed: frozenset[str] = frozenset()
    layouts: Mapping[str, tuple[RowLayout, ...]] = field(default_factory=dict)
    ends: tuple[tuple[tuple[str, int], ...], ...] = ()

    def altered(self, feeds: Batch) -> Batch | None:
        """The feeds with other content where it is hidden; None where nothing is, or nothing else can stand there."""
        found = dict(feeds)
        for mask in self.masks:
            hidden = mask.hidden(feeds)
            if hidden.any() and not hidden.all():
                found |= {name: _replaced(feeds[name], hidden) for name in mask.contents}
        return found if any(found[name] is not feeds[name] for name in found) else None

    def cropped(self, feeds: Batch) -> Batch:
        """The feeds without the end that is hidden in all samples."""
        found = dict(feeds)
        for mask, axes in zip(self.masks, self.ends, strict=False):
            seen = np.flatnonzero(~mask.hidden(feeds).all(axis=0))
            end = int(seen[-1]) + 1 if seen.size else None
            for name, axis in axes:
                found[name] = found[name][(slice(None),) * axis + (slice(None, end),)]
        return found

    def cut(self, feeds: Batch, cropped: Batch, name: str) -> int:
        """How many rows a value has fewer for the feeds that were cropped."""
        pairs = zip(self.masks, self.layouts.get(name, ()), strict=False)
        return sum(feeds[m.name].size - cropped[m.name].size for m, lay in pairs if lay is not RowLayout.WHOLE)

    def sight(self, runner: Runner, feeds: Batch, results: Mapping[str, Array]) -> dict[str, Array]:
        """Which rows of what a runner made are about positions in sight: an index of each value's axes but the last."""
        told = {name: self._told(name, feeds, array.shape[:-1]) for name, array in results.items()}
        known = {name: kept for name, kept in told.items() if kept is not None}
        if len(known) == len(results):
            return {name: kept if kept.any() else np.ones(kept.shape, bool) for name, kept in known.items()}
        altered = self.altered(feeds)
        others = None if altered is None else runner(altered)
        found = {}
        for name, array in results.items():
            shape = array.shape[:-1]
            kept = np.ones(shape, bool)
            if others is not None and name not in self.mixed:
                kept = ~changed_rows(array, others[name]).reshape(shape)
            found[name] = kept if kept.any() else np.ones(shape, bool)
        return agreed(found)

    def _told(self, name: str, feeds: Batch, shape: tuple[int, ...]) -> Array | None:
        """What the masks themselves tell of a value's rows; None where it is not known how they lie."""
        layouts = self.layouts.get(name)
        if layouts is None and self.masks:
            return None
        found: Array = np.ones(shape, bool)
        for mask, layout in zip(self.masks, layouts or (), strict=True):
            kept = layout.spread(~mask.hidden(feeds), shape)
            if kept is None:
                return None
            found = found & kept
        return found


def agreed(sight: Mapping[str, Array]) -> dict[str, Array]:
    """Where values lie alike, a row that is hidden in one is hidden in all.

    A hidden position that looks at the only one in sight makes the same of whatever stands in it.
    """
    fewest: dict[tuple[int, ...], Array] = {}
    for kept in sight.values():
        known = fewest.setdefault(kept.shape, kept)
        if kept.sum() < known.sum():
            fewest[kept.shape] = kept
    return {
        name: fewest[kept.shape] if not (fewest[kept.shape] & ~kept).any() else kept for name, kept in sight.items()
    }


def seen(values: Mapping[str, Array], sight: Mapping[str, Array]) -> dict[str, Array]:
    """What of some values is in sight, as far as that is told."""
    return {name: array[sight[name]] if name in sight else array for name, array in values.items()}


def changed_rows(before: Array, after: Array, share: float = CHANGED) -> Array:
    """Which rows differ, or are not finite."""
    if before.shape != after.shape:
        return np.ones(before.size // max(before.shape[-1], 1), bool)
    one, other = (array.reshape(-1, array.shape[-1] if array.ndim else 1) for array in (before, after))
    if one.dtype.kind not in "fV":
        return np.asarray((one != other).any(-1))
    with np.errstate(invalid="ignore"):
        gap, size = np.abs(one - other).max(-1, initial=0), np.abs(one).max(-1, initial=0)
    return np.asarray(~(gap <= share * size))


def _replaced(content: Array, hidden: Array) -> Array:
    """Content with that of other positions where it is hidden; as it is where there is nothing else."""
    known = np.unique(content[~hidden], axis=0)
    old = content[hidden]
    turn = np.arange(len(old))
    new, differs = old, np.zeros(len(old), bool)
    for step in range(min(len(known), 3)):
        other = known[(turn + step) % len(known)]
        new = np.where(_wide(differs, old), new, other)
        differs = (new != old).reshape(len(old), -1).any(1)
    if not differs.any():
        return content
    altered = content.copy()
    altered[hidden] = new
    return altered


def _wide(flags: Array, like: Array) -> Array:
    return flags.reshape(-1, *[1] * (like.ndim - 1))


def flat(array: Array) -> Array:
    """A mask as ``[batch, positions]``."""
    return array.reshape(array.shape[0], array.shape[-1])
