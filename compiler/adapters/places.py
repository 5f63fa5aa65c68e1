"""What an adapter may change in a graph, by the names that its author gave, and which of it is meant by a name."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from qcc.dsl.diagnostics.spelling import nearest
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.names import spellings
from qcc.ir.graph.ops import Layer, Weight

AGAIN = re.compile(r"#\d+$")
FLAT = re.compile(r"^(lora|lycoris|loha|lokr|oft|ia3)(_(unet|te\d?|transformer|prior))?_")  # names of kohya's scripts
PARTS = (".weight", ".bias")
FLOATS = ("float32", "float16", "float64", "bfloat16")
Rule = tuple[str, str]
"""What is left out at the front of a file's names, and what stands there in the model's."""


@dataclass
class AdapterPlace:
    """A layer, or a norm, with what it computes with.

    Args:
        name: the module's path, in dots.
        weights: of its layers; one, unless several layers have the name.
        layers: that are it: several where it runs more than once.
        constants: those of the graph that are called ``<name>.weight`` and ``<name>.bias``, by that word.
    """

    name: str
    weights: list[Weight] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MatchedNames:
    """Which names of a file mean what.

    Args:
        places: by the file's names.
        missing: names that mean nothing, each with what may have been meant.
        unclear: names that may mean several places, or one by another rule than the rest, with those.
    """

    places: Mapping[str, AdapterPlace]
    missing: Mapping[str, str | None]
    unclear: Mapping[str, tuple[str, ...]]


def places_of(graph: Graph) -> dict[str, AdapterPlace]:
    """All that an adapter may change, by name."""
    found: dict[str, AdapterPlace] = {}
    for weight in graph.weights():
        for layer in weight.layers:
            place = _at(found, AGAIN.sub("", layer.name))
            place.layers.append(layer)
            if weight not in place.weights:
                place.weights.append(weight)
    for op in graph.ops():
        for name in filter(None, op.inputs):
            ending = next((one for one in PARTS if name.endswith(one)), None)
            if ending is not None and graph.constant(name) is not None and graph.value(name).dtype in FLOATS:
                _at(found, name.removesuffix(ending)).constants[ending[1:]] = name
    return found


def _at(found: dict[str, AdapterPlace], name: str) -> AdapterPlace:
    dotted = next(one for one in (*spellings(name), name.replace("/", ".")) if "/" not in one)
    return found.setdefault(dotted, AdapterPlace(dotted))


def match_names(modules: Sequence[str], places: Mapping[str, AdapterPlace]) -> MatchedNames:
    """Find the places that names mean, by one rule for all: what stands at their front may differ.

    The rule is the one by which most names mean a place, of several the one that changes least.
    """
    index = defaultdict[str, list[tuple[str, str]]](list)
    for place in places:
        for added, key in _ends(place):
            index[key].append((place, added))
    meant: dict[str, dict[Rule, set[str]]] = {one: defaultdict(set) for one in modules}
    for module in modules:
        for removed, key in _readings(module):
            for place, added in index.get(key, ()):
                if not removed or not added:
                    meant[module][removed, added].add(place)
    votes = Counter(rule for rules in meant.values() for rule in rules)
    best = sorted(votes, key=lambda rule: (-votes[rule], sum(map(len, rule)), rule))
    rivals = [rule for rule in best if votes[rule] == votes[best[0]] and sum(map(len, rule)) == sum(map(len, best[0]))]
    matched: dict[str, AdapterPlace] = {}
    missing, unclear = dict[str, str | None](), dict[str, tuple[str, ...]]()
    for module, rules in meant.items():
        may_be = {place for rule in rivals for place in rules.get(rule, ())}
        by_others = {place for ones in rules.values() for place in ones}
        if len(may_be) == 1:
            matched[module] = places[may_be.pop()]
        elif may_be or by_others:
            unclear[module] = tuple(sorted(may_be or by_others))
        else:
            missing[module] = _near(module, best[:1], places)
    return MatchedNames(matched, missing, unclear)


def _ends(place: str) -> Iterator[tuple[str, str]]:
    """What may be left out at the front of a place's name, with the key of the rest."""
    parts = place.split(".")
    return ((".".join(parts[:at]), "_".join(parts[at:])) for at in range(len(parts)))


def _readings(module: str) -> Iterator[tuple[str, str]]:
    if "." in module:
        yield from _ends(module)
        return
    yield "", module
    flat = FLAT.match(module)
    if flat:
        yield flat.group(), module[flat.end() :]


def _near(module: str, rules: Sequence[Rule], places: Mapping[str, AdapterPlace]) -> str | None:
    """The place whose name is nearly what a rule, or what is usual, makes of a name."""
    tried = [*rules, ("base_model.model", ""), ("base_model", ""), ("", "")]
    for removed, added in tried:
        if module.startswith(removed):
            rest = module[len(removed) :].strip(".")
            near = nearest(".".join(filter(None, (added, rest))), places)
            flat = near or nearest(rest, {one.replace(".", "_"): one for one in places})
            if flat:
                return next(one for one in places if flat in (one, one.replace(".", "_")))
    return None
