"""Finding the attention masks among a model's inputs, by what they do to the values of a few samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.masks import Hiding, Mask, RowLayout, agreed, changed_rows, flat
from qcc.compiler.calibrate.samples import Samples
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array, Value

PROBED = 4  # samples that show what an input does
RESHAPED = 1e-3  # of a row's largest number: what sums of other lengths may differ by


def find_masks(inputs: Sequence[Value], runner: Runner, samples: Samples) -> Hiding:
    """The masks among a model's inputs, by what a runner of some of its values makes of a few samples."""
    masks: list[tuple[Mask, _Effect]] = []
    ones = tuple(samples.parts(1))
    for value in inputs:
        for mask in _candidates(value, inputs, ones):
            probe = _probe(mask, samples, ones)
            effect = None if probe is None else _effect(mask, runner, probe)
            if effect is not None:
                masks.append((mask, effect))
                break
    effects = [effect for _, effect in masks]
    names = set.intersection(*(set(effect.layouts) for effect in effects)) if effects else set()
    layouts = {name: tuple(effect.layouts[name] for effect in effects) for name in sorted(names)}
    mixed = frozenset[str]().union(*(effect.mixed for effect in effects))
    found = Hiding(tuple(mask for mask, _ in masks), mixed, layouts)
    return _with_ends(found, inputs, runner, effects) if samples.divisible else found


def _with_ends(hiding: Hiding, inputs: Sequence[Value], runner: Runner, effects: "Sequence[_Effect]") -> Hiding:
    """With the axes that can be cut, if the model makes the same of feeds that are."""
    sizes = {value.name: value.shape or () for value in inputs}
    along = [sizes[mask.name][-1] if sizes[mask.name] else None for mask in hiding.masks]
    ends = tuple(
        tuple((name, at) for name, shape in sizes.items() for at, size in enumerate(shape) if size == symbol)
        for symbol in along
    )
    if not ends or not all(isinstance(symbol, str) for symbol in along) or len(set(along)) < len(along):
        return hiding
    found = replace(hiding, ends=ends)
    return found if all(_holds(found, runner, effect) for effect in effects) else hiding


def _holds(hiding: Hiding, runner: Runner, effect: "_Effect") -> bool:
    """What is in sight is the same when feeds are cropped, and some of these can be."""
    cropped = hiding.cropped(effect.probe)
    if all(cropped[name].shape == array.shape for name, array in effect.probe.items()):
        return False
    try:
        results = runner(cropped)
    except ModelError:
        return False
    if set(effect.before) - set(hiding.layouts):
        return False
    kept, others = hiding.sight(runner, cropped, results), hiding.sight(runner, effect.probe, effect.before)
    pairs = ((results[name][kept[name]], effect.before[name][others[name]]) for name in results)
    return all(one.shape == other.shape and not changed_rows(one, other, RESHAPED).any() for one, other in pairs)


@dataclass(frozen=True)
class _Effect:
    """What a mask does: the values that it leaves mixed, and how rows lie; with some feeds and what is made of them."""

    mixed: frozenset[str]
    layouts: Mapping[str, RowLayout]
    probe: Batch
    before: Mapping[str, Array]


def _candidates(value: Value, inputs: Sequence[Value], ones: Sequence[Batch]) -> list[Mask]:
    """An input that may be a mask, hiding by zeros or by ones."""
    ends = set[int]()
    for one in ones:  # each is held no longer than it is looked at: there may be more than memory holds
        array = one[value.name]
        if not (_is_layout(array) and array.dtype.kind in "biu" and array.size):
            return []
        ends |= {int(array.min()), int(array.max())}
    if (min(ends), max(ends)) != (0, 1):
        return []
    contents = tuple(
        other.name
        for other in inputs
        if other.name != value.name and _goes_with(value, other) and _matches(value.name, other.name, ones)
    )
    return [Mask(value.name, hides, contents) for hides in (0, 1)] if contents else []


def _effect(mask: Mask, runner: Runner, probe: Batch) -> _Effect | None:
    """What a mask does; None if it does not hide."""
    altered = Hiding((mask,)).altered(probe)
    if altered is None:
        return None
    try:
        before, after, lifted = runner(probe), runner(altered), runner(mask.lifted(probe))
    except ModelError:  # the model does not run on such feeds
        return None
    held, mixed, acts = 0, set[str](), "mask" in mask.name.lower()
    sight: dict[str, Array] = {}
    for name, array in before.items():
        same = ~changed_rows(array, after[name])
        sight[name] = same.reshape(array.shape[:-1])
        if not same.any():
            mixed.add(name)
            sight[name] = np.ones(array.shape[:-1], bool)
            continue
        held += 1
        acts = acts or bool((changed_rows(array, lifted[name]) & same).any())
    if not acts or held <= len(mixed):
        return None
    seen = ~mask.hidden(probe)
    found = {name: _layout(kept, seen) for name, kept in agreed(sight).items()}
    known = {name: layout for name, layout in found.items() if layout is not None}
    return _Effect(frozenset(mixed), known, probe, before)


def _layout(kept: Array, seen: Array) -> RowLayout | None:
    """How rows lie of which some are in sight, if it can be told."""
    told = ((layout, layout.spread(seen, kept.shape)) for layout in RowLayout)
    return next((layout for layout, sight in told if sight is not None and np.array_equal(sight, kept)), None)


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


def _is_layout(array: Array) -> bool:
    """It has a number for each position of each sample."""
    return isinstance(array, np.ndarray) and array.ndim >= 2 and all(size == 1 for size in array.shape[1:-1])


def _goes_with(mask: Value, other: Value) -> bool:
    """By what is declared, an input may have the positions of a mask on its first axes."""
    if mask.shape is None or other.shape is None or len(other.shape) < 2:
        return False
    pairs = zip((mask.shape[0], mask.shape[-1]), other.shape, strict=False)
    return all(a == b or a is None or b is None for a, b in pairs)


def _matches(mask: str, other: str, ones: Sequence[Batch]) -> bool:
    """An input has a place for each position of a mask, and says more than yes or no."""
    if not all(isinstance(one[other], np.ndarray) and one[other].shape[:2] == flat(one[mask]).shape for one in ones):
        return False
    kind = ones[0][other].dtype.kind
    return kind == "f" or (kind in "iu" and max(int(one[other].max()) for one in ones) > 1)
