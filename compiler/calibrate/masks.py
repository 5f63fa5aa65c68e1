"""Finding the positions that an attention mask hides, and the rows of captured values that are about them.

A mask is known by what the graph does with it. Where it hides a position, the position's content reaches no other
position; so other content is put there, and the rows that change are the hidden ones, wherever and in whatever layout
they come out. An input of zeros and ones that tells kinds of tokens does not pass: what stands at its zeros is seen
everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Samples
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array, Value

PROBED = 4  # samples that show what an input does
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
        return np.asarray(_flat(feeds[self.name]) == self.hides)

    def lifted(self, feeds: Batch) -> Batch:
        """The feeds with nothing hidden."""
        return {**feeds, self.name: np.full_like(feeds[self.name], 1 - self.hides)}


@dataclass(frozen=True)
class MaskedRows:
    """Those of a value ``[rows, last axis]`` that count, and how many more are hidden."""

    array: Array
    hidden: int


@dataclass(frozen=True)
class Hiding:
    """The masks of a model, and the values of which no row is about hidden positions alone."""

    masks: tuple[Mask, ...] = ()
    mixed: frozenset[str] = frozenset()

    def altered(self, feeds: Batch) -> Batch | None:
        """The feeds with other content where it is hidden; None where nothing is, or nothing else can stand there."""
        found = dict(feeds)
        for mask in self.masks:
            hidden = mask.hidden(feeds)
            if hidden.any() and not hidden.all():
                found |= {name: _replaced(feeds[name], hidden) for name in mask.contents}
        return found if any(found[name] is not feeds[name] for name in found) else None

    def sight(self, runner: Runner, feeds: Batch, results: Mapping[str, Array]) -> dict[str, Array]:
        """Which rows of what a runner made are about positions in sight: an index of each value's axes but the last."""
        altered = self.altered(feeds)
        others = None if altered is None else runner(altered)
        found = {}
        for name, array in results.items():
            shape = array.shape[:-1]
            kept = np.ones(shape, bool)
            if others is not None and name not in self.mixed:
                kept = ~_changed(array, others[name]).reshape(shape)
            found[name] = kept if kept.any() else np.ones(shape, bool)
        return _agreed(found)

    def visible(self, runner: Runner, feeds: Batch, results: Mapping[str, Array]) -> dict[str, MaskedRows]:
        """Of what a runner made of some feeds, the rows that are about positions in sight."""
        found = {}
        for name, kept in self.sight(runner, feeds, results).items():
            array = results[name][kept]
            rows = array.reshape(-1, array.shape[-1])
            if self.masks:
                rows = rows[rows.any(-1)]
            found[name] = MaskedRows(rows, int(kept.size - kept.sum()))
        return found


def _agreed(sight: Mapping[str, Array]) -> dict[str, Array]:
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


def find(inputs: Sequence[Value], runner: Runner, samples: Samples) -> Hiding:
    """The masks among a model's inputs, by what a runner of some of its values makes of a few samples."""
    masks: list[Mask] = []
    ones = tuple(samples.parts(1))
    mixed: frozenset[str] = frozenset()
    for value in inputs:
        for mask in _candidates(value, inputs, ones):
            probe = _probe(mask, samples, ones)
            left = None if probe is None else _effect(mask, runner, probe)
            if left is not None:
                masks.append(mask)
                mixed |= left
                break
    return Hiding(tuple(masks), mixed)


def _candidates(value: Value, inputs: Sequence[Value], ones: Sequence[Batch]) -> list[Mask]:
    """An input that may be a mask, hiding by zeros or by ones."""
    arrays = [one[value.name] for one in ones]
    if not all(_is_layout(array) and array.dtype.kind in "biu" and array.size for array in arrays):
        return []
    lowest, highest = min(int(one.min()) for one in arrays), max(int(one.max()) for one in arrays)
    if (lowest, highest) != (0, 1):
        return []
    contents = tuple(
        other.name
        for other in inputs
        if other.name != value.name and _goes_with(value, other) and _matches(value.name, other.name, ones)
    )
    return [Mask(value.name, hides, contents) for hides in (0, 1)] if contents else []


def _effect(mask: Mask, runner: Runner, probe: Batch) -> frozenset[str] | None:
    """The values that a mask leaves mixed; None if it does not hide."""
    altered = Hiding((mask,)).altered(probe)
    if altered is None:
        return None
    try:
        before, after, lifted = runner(probe), runner(altered), runner(mask.lifted(probe))
    except ModelError:  # the model does not run on such feeds
        return None
    held, mixed, acts = 0, set(), "mask" in mask.name.lower()
    for name, array in before.items():
        same = ~_changed(array, after[name])
        if not same.any():
            mixed.add(name)
            continue
        held += 1
        acts = acts or bool((_changed(array, lifted[name]) & same).any())
    return frozenset(mixed) if acts and held > len(mixed) else None


def _probe(mask: Mask, samples: Samples, ones: Sequence[Batch]) -> Batch | None:
    """A few samples of one shape of which something is hidden, and something is not."""
    found: list[Batch] = []
    for one in ones:
        hidden = mask.hidden(one)
        alike = not found or samples.kind(one) == samples.kind(found[0])
        if hidden.any() and not hidden.all() and alike:
            found.append(one)
        if len(found) == PROBED or (found and not samples.divisible):
            break
    return samples.joined(found) if found else None


def _changed(before: Array, after: Array) -> Array:
    """Which rows differ, or are not finite."""
    if before.shape != after.shape:
        return np.ones(before.size // max(before.shape[-1], 1), bool)
    one, other = (array.reshape(-1, array.shape[-1] if array.ndim else 1) for array in (before, after))
    if one.dtype.kind not in "fV":
        return np.asarray((one != other).any(-1))
    with np.errstate(invalid="ignore"):
        gap, size = np.abs(one - other).max(-1, initial=0), np.abs(one).max(-1, initial=0)
    return np.asarray(~(gap <= CHANGED * size))


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


def _is_layout(array: Array) -> bool:
    """It has a number for each position of each sample."""
    return isinstance(array, np.ndarray) and array.ndim >= 2 and all(size == 1 for size in array.shape[1:-1])


def _flat(array: Array) -> Array:
    return array.reshape(array.shape[0], array.shape[-1])


def _goes_with(mask: Value, other: Value) -> bool:
    """By what is declared, an input may have the positions of a mask on its first axes."""
    if mask.shape is None or other.shape is None or len(other.shape) < 2:
        return False
    pairs = zip((mask.shape[0], mask.shape[-1]), other.shape, strict=False)
    return all(a == b or a is None or b is None for a, b in pairs)


def _matches(mask: str, other: str, ones: Sequence[Batch]) -> bool:
    """An input has a place for each position of a mask, and says more than yes or no."""
    if not all(isinstance(one[other], np.ndarray) and one[other].shape[:2] == _flat(one[mask]).shape for one in ones):
        return False
    kind = ones[0][other].dtype.kind
    return kind == "f" or (kind in "iu" and max(int(one[other].max()) for one in ones) > 1)
