"""Putting adapters into the weights of a graph."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from qcc.compiler.adapters.places import AdapterPlace, MatchedNames, match_names, places_of
from qcc.compiler.adapters.prefix import PrefilledCache, has_prefix, prefilled, told
from qcc.compiler.adapters.put import base_of, put
from qcc.ir.adapters.delta import Affine
from qcc.ir.adapters.read import AdapterKey, AdapterSource, AdapterTensors, read_adapter, why_unread
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Feeds

TOLD = 5


@dataclass(frozen=True)
class AdapterChange:
    """What an adapter did to a weight or a bias.

    Args:
        layer: whose it is.
        part: ``weight`` or ``bias``.
        kind: of adapter.
        share: the size of the change over that of what was there; infinite where that was zero or nothing.
    """

    layer: str
    part: str
    kind: str
    share: float

    @property
    def known(self) -> bool:
        """There was something to compare with."""
        return math.isfinite(self.share)


@dataclass(frozen=True)
class MergedAdapter:
    """An adapter that was put into the weights, and what it changed; or a prefix, and the cache that it fills."""

    source: AdapterSource
    changes: tuple[AdapterChange, ...] = ()
    cache: PrefilledCache | None = field(default=None, repr=False)

    @property
    def cache_text(self) -> str:
        """What is to be done with the cache, in words; empty without one."""
        return "" if self.cache is None else told(self.cache)


@dataclass
class _Sums:
    """What is added up for a place, over all adapters."""

    place: AdapterPlace
    base: Affine
    added: dict[str, Array] = field(default_factory=dict)

    def add(self, part: str, more: Array) -> None:
        self.added[part] = self.added[part] + more if part in self.added else more


def merge_adapters(
    graph: Graph, sources: Sequence[AdapterSource], sample: Callable[[], Feeds] | None = None
) -> tuple[MergedAdapter, ...]:
    """Change the weights of a graph as some adapters say: each adds what it would change of the graph as it is.

    Args:
        graph: whose weights change.
        sources: the adapters.
        sample: makes inputs on which the graph runs; by them caches are found that a prefix fills.

    Raises:
        ModelError: one cannot be read, names what is not there, or does not fit; nothing has changed.
    """
    places, sums, merged = places_of(graph), dict[str, _Sums](), list[MergedAdapter]()
    for source in sources:
        tensors = read_adapter(source)
        if has_prefix(tensors) and sample is not None:
            if any(one.cache for one in merged):
                raise ModelError("Q333", f"`{source.name}` is a second prefix", "a cache begins with one of them")
            merged.append(MergedAdapter(source, cache=prefilled(tensors, graph, sample)))
            continue
        keys = _taken(tensors)
        matched = match_names(list(dict.fromkeys(module for module, _ in keys)), places)
        _check_names(source, matched)
        changes = [one for key in keys for one in _changes(graph, tensors, key, matched.places[key[0]], sums)]
        _check_kinds(source, changes)
        merged.append(MergedAdapter(source, tuple(changes)))
    for one in sums.values():
        with _telling(f"the adapters at `{one.place.name}`"):
            put(graph, one.place, one.base, one.added)
    return tuple(merged)


def _taken(tensors: AdapterTensors) -> list[AdapterKey]:
    """The layers and kinds that are asked for.

    Raises:
        ModelError: there is none, or there are tensors of no kind.
    """
    source = tensors.source

    def is_taken(name: str) -> bool:
        return source.only is None or fnmatchcase(name, source.only)

    if unread := [name for name in tensors.unread if is_taken(name)]:
        message = f"`{source.name}` has tensors that change no weight: {_listed(unread)}: {why_unread(unread[0])}"
        raise ModelError("Q333", message, "export the model with them, or take what `only` names: see the page")
    keys = [key for key in tensors.found if is_taken(key[0])]
    if not keys:
        empty = f"`only` leaves nothing of `{source.name}`" if tensors.found else f"`{source.name}` has no tensors"
        names = f"it names {_listed(tensors.modules)}" if tensors.found else "give the file that training wrote"
        raise ModelError("Q331", empty, names)
    return keys


def _check_names(source: AdapterSource, matched: MatchedNames) -> None:
    """See that every name of a file means one layer.

    Raises:
        ModelError: one means none, or several do.
    """
    if matched.missing:
        near = next(((name, one) for name, one in matched.missing.items() if one), None)
        help = f"did you mean `{near[1]}` by `{near[0]}`?" if near else "`qcc inspect` lists the layers of the model"
        if not near and matched.places:
            help = "take a part of the file by `only`, or export the model with the names of its modules"
        message = f"`{source.name}` names what the model has not: {_listed(list(matched.missing))}"
        raise ModelError("Q331", message, help)
    meant: dict[str, str] = {}
    named = [(name, place.name) for name, place in matched.places.items()]
    for name, place in (*named, *((name, one) for name, ones in matched.unclear.items() for one in ones)):
        other = meant.setdefault(place, name)
        if other != name:
            message = f"`{other}` and `{name}` of `{source.name}` may both mean `{place}`"
            raise ModelError("Q331", message, "take one of them by `only`")
    for name, ones in matched.unclear.items():
        message = f"`{name}` of `{source.name}` may be {_listed(ones)}"
        raise ModelError("Q331", message, "export the model with the names of its modules")


def _changes(
    graph: Graph, tensors: AdapterTensors, key: AdapterKey, place: AdapterPlace, sums: dict[str, _Sums]
) -> Iterator[AdapterChange]:
    """What a kind changes at a place, added to what others do."""
    source, (_, kind) = tensors.source, key
    with _telling(f"`{source.name}` does not fit `{place.name}`"):
        if place.name not in sums:
            sums[place.name] = _Sums(place, base_of(graph, place))
        held = sums[place.name]
        new = kind().apply(tensors.parts(key), held.base)
    for part, before, after in (
        ("weight", held.base.weight, new.weight),
        ("bias", held.base.bias, new.bias),
    ):
        if after is None or after is before:
            continue
        more = source.scale * (after - (0 if before is None else before))
        held.add(part, more)
        size = 0.0 if before is None else float(np.linalg.norm(before))
        share = float(np.linalg.norm(more)) / size if size else float("inf")
        yield AdapterChange(place.name, part, kind.label, share)


def _check_kinds(source: AdapterSource, changes: Sequence[AdapterChange]) -> None:
    """See that no two kinds of one file change the same weight: which comes first would decide what it becomes.

    Raises:
        ModelError: two do.
    """
    done: dict[tuple[str, str], str] = {}
    for one in changes:
        other = done.setdefault((one.layer, one.part), one.kind)
        if other != one.kind:
            message = f"`{source.name}` changes the {one.part} of `{one.layer}` as {other} and as {one.kind}"
            raise ModelError("Q333", message, "write each kind into a file of its own: what they change adds up")


class _telling:  # noqa: N801 - used as a function
    """Tell what was refused with where it was."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Refused):
            raise ModelError("Q332", f"{self._where}: {error.reason}") from error


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:TOLD])
    return shown + (f" and {len(names) - TOLD:,} more" if len(names) > TOLD else "")


def texts(merged: Sequence[MergedAdapter]) -> Mapping[str, str]:
    """A line for each adapter, by its file."""
    return {f"{one.source.name}": _text(one) for one in merged}


def _text(one: MergedAdapter) -> str:
    if one.cache is not None:
        return one.cache_text
    weights = [change for change in one.changes if change.part == "weight"]
    biases = [change for change in one.changes if change.part == "bias"]
    kinds = " and ".join(dict.fromkeys(change.kind for change in one.changes))
    words = (weights, "weight", "s"), (biases, "bias", "es")
    counts = [f"{len(part):,} {word}{'' if len(part) == 1 else end}" for part, word, end in words if part]
    shares = sorted(change.share for change in one.changes if change.known)
    by = f" by {_percent(shares[0])} to {_percent(shares[-1])}" if shares else ""
    scale = f", scale {one.source.scale:g}" if one.source.scale != 1 else ""
    return f"{kinds}{scale}: {' and '.join(counts)} changed{by}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"
