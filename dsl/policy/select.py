"""Selectors: which layers a rule is about."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from qcc.dsl.diagnostics.source import Span
from qcc.dsl.diagnostics.spelling import edit_distance
from qcc.dsl.policy.regex import Regex
from qcc.dsl.syntax.literals import bytes_text, count_text, number_text, quote

ANY = "any"
FACTS = {
    "name": "text",
    "params": "number",
    "in": "number",
    "out": "number",
    "dtype": "word",
    "position": "position",
    "op": "op",
    "kernel": "dims",
    "groups": "number",
    "bytes": "size",
    "data": "origin",
}
"""What a predicate may look at, and the type of each."""
DTYPES = {
    "fp64": ("double", "float64"),
    "fp32": ("float", "float32"),
    "fp16": ("half", "float16"),
    "bf16": ("bfloat16",),
}
"""Element types and their other names."""
GIVEN, GENERATED = "given", "generated"
ORIGINS = (GIVEN, GENERATED)
"""Where the data comes from that the model is run on."""


@dataclass(frozen=True)
class Facts:
    """What selectors can know of one layer."""

    name: str
    kinds: frozenset[str]
    params: int
    outputs: int
    inputs: int
    dtype: str
    position: int
    """From 0, in topological order."""
    count: int
    """How many layers there are."""
    kernel: tuple[int, ...] = ()
    groups: int = 1
    """Of a convolution; one of anything else."""
    bytes: int = 0
    """What the weight is stored in."""
    op: str = ""
    """What the layer does, by its op's name within the class."""
    data: str = GENERATED
    """Where the data comes from that the layers are run on, the same for all: one of `ORIGINS`."""
    others: tuple[str, ...] = ()
    """What the layer is called by other exporters; a predicate about the name may mean any."""


@dataclass(frozen=True)
class Predicate:
    """One comparison between brackets."""

    fact: str
    operator: str
    value: str | float | tuple[int, ...] | Regex
    span: Span = field(compare=False, repr=False)

    @property
    def text(self) -> str:
        """The predicate as the language spells it."""
        value = self.value
        if isinstance(value, Regex):
            shown = f"/{value.pattern.replace('/', chr(92) + '/')}/"
        elif isinstance(value, tuple):
            shown = "x".join(str(size) for size in value)
        elif isinstance(value, str):
            shown = quote(value) if self.fact == "name" else value
        else:
            spell = {"params": count_text, "bytes": bytes_text}.get(self.fact, number_text)
            shown = spell(value)
        return f"{self.fact} {self.operator} {shown}"

    def holds(self, facts: Facts) -> bool:
        """Whether it's true of a layer."""
        if FACTS[self.fact] == "text":
            found = any(map(self._fits, (facts.name, *facts.others)))
            return found != self.operator.startswith("!")
        actual = self.actual(facts)
        wanted = self.value
        if self.fact == "position" and isinstance(actual, float):
            wanted = self._place(facts.count)
        if self.operator in ("==", "!="):
            return (actual == wanted) == (self.operator == "==")
        assert isinstance(actual, float) and isinstance(wanted, int | float)
        return _compare(self.operator, actual, wanted)

    def actual(self, facts: Facts) -> float | str | tuple[int, ...]:
        """What the layer has in the predicate's fact."""
        numbers = {"params": facts.params, "in": facts.inputs, "out": facts.outputs, "position": facts.position}
        numbers |= {"groups": facts.groups, "bytes": facts.bytes}
        if self.fact in numbers:
            return float(numbers[self.fact])
        others: dict[str, str | tuple[int, ...]] = {"kernel": facts.kernel}
        others |= {"data": facts.data, "op": facts.op, "dtype": standard_dtype(facts.dtype)}
        return others.get(self.fact, facts.name)

    def _fits(self, name: str) -> bool:
        if isinstance(self.value, Regex):
            return self.value.found_in(name[:LONGEST_NAME])
        return matches_glob(str(self.value), name) if "~" in self.operator else self.value == name

    def _place(self, count: int) -> float:
        if self.value == "first":
            return 0
        if self.value == "last":
            return count - 1
        assert isinstance(self.value, int | float)
        return self.value if self.value >= 0 else count + self.value


LONGEST_NAME = 1000
"""Names are cut here before a regular expression sees them."""


def _compare(operator: str, left: float, right: float) -> bool:
    if operator in ("<", ">"):
        return left < right if operator == "<" else left > right
    return left <= right if operator == "<=" else left >= right


def standard_dtype(name: str) -> str:
    """The language's spelling of an element type."""
    return next((ours for ours, others in DTYPES.items() if name.lower() in others), name)


@dataclass(frozen=True)
class Selector:
    """A set of layers."""

    span: Span = field(compare=False, repr=False)

    @property
    def text(self) -> str:
        """The selector as the language spells it."""
        raise NotImplementedError


@dataclass(frozen=True)
class LayerClass(Selector):
    """A class of layers, or all of them."""

    name: str

    @property
    def text(self) -> str:
        """The class's name."""
        return self.name


@dataclass(frozen=True)
class Where(Selector):
    """Those of some layers of which all predicates are true."""

    base: Selector
    predicates: tuple[Predicate, ...]

    @property
    def text(self) -> str:
        """The base and its brackets."""
        return f"{_grouped(self.base, LayerClass)}[{', '.join(one.text for one in self.predicates)}]"


@dataclass(frozen=True)
class Either(Selector):
    """The layers of any of these."""

    items: tuple[Selector, ...]

    @property
    def text(self) -> str:
        """The items with commas between them."""
        return ", ".join(one.text for one in self.items)


@dataclass(frozen=True)
class Both(Selector):
    """The layers of all of these."""

    items: tuple[Selector, ...]

    @property
    def text(self) -> str:
        """The items with `and` between them."""
        return " and ".join(_grouped(one, LayerClass, Where, Not) for one in self.items)


@dataclass(frozen=True)
class Not(Selector):
    """All other layers."""

    item: Selector

    @property
    def text(self) -> str:
        """The item after `not`."""
        return f"not {_grouped(self.item, LayerClass, Where, Not)}"


def _grouped(selector: Selector, *plain: type[Selector]) -> str:
    return selector.text if isinstance(selector, plain) else f"({selector.text})"


def matches(selector: Selector, facts: Facts) -> bool:
    """Whether a layer belongs to a selector."""
    match selector:
        case LayerClass(name=name):
            return name == ANY or name in facts.kinds
        case Where(base=base, predicates=predicates):
            return matches(base, facts) and all(one.holds(facts) for one in predicates)
        case Either(items=items):
            return any(matches(one, facts) for one in items)
        case Both(items=items):
            return all(matches(one, facts) for one in items)
        case Not(item=item):
            return not matches(item, facts)
    raise AssertionError(selector)


def classes(selector: Selector) -> frozenset[str]:
    """The classes that a selector names."""
    match selector:
        case LayerClass(name=name):
            return frozenset({name})
        case Where(base=item) | Not(item=item):
            return classes(item)
        case Either(items=items) | Both(items=items):
            return frozenset().union(*map(classes, items))
    raise AssertionError(selector)


def has_predicate(selector: Selector) -> bool:
    """Whether a selector looks at more than classes, so that matching nothing is a mistake."""
    match selector:
        case Where():
            return True
        case Either(items=items) | Both(items=items):
            return any(has_predicate(one) for one in items)
        case Not(item=item):
            return has_predicate(item)
    return False


def asks_for_data(selector: Selector) -> bool:
    """Whether a selector looks at where the data comes from, so that other data may match."""
    match selector:
        case Where(base=base, predicates=predicates):
            return asks_for_data(base) or any(one.fact == "data" for one in predicates)
        case Either(items=items) | Both(items=items):
            return any(asks_for_data(one) for one in items)
        case Not(item=item):
            return asks_for_data(item)
    return False


def matches_glob(glob: str, name: str) -> bool:
    """Whether a whole name fits a glob: `*` is any text, slashes and dots included, `?` any character.

    Takes time in the product of the lengths at worst, whatever the stars.
    """
    at = star = -1
    i = j = 0
    while j < len(name):
        if i < len(glob) and glob[i] == "*":
            star, at = i, j
            i += 1
        elif i < len(glob) and glob[i] in ("?", name[j]):
            i, j = i + 1, j + 1
        elif star >= 0:
            at += 1
            i, j = star + 1, at
        else:
            return False
    return not glob[i:].strip("*")


def near_misses(selector: Selector, all_facts: Sequence[Facts], limit: int = 3) -> list[str]:
    """Why a selector matches nothing: lines that name the nearest layers, or the predicate that excludes them."""
    lines: list[str] = []
    for part in _alternatives(selector):
        lines += _why_nothing(part, all_facts, limit)
    return list(dict.fromkeys(lines))[:limit]


def _alternatives(selector: Selector) -> Iterator[Selector]:
    if not isinstance(selector, Either):
        yield selector
        return
    for item in selector.items:
        yield from _alternatives(item)


def _why_nothing(selector: Selector, all_facts: Sequence[Facts], limit: int) -> list[str]:
    if isinstance(selector, Where):
        base = [one for one in all_facts if matches(selector.base, one)]
        if not base:
            return _why_nothing(selector.base, all_facts, limit)
        failed = [one for one in selector.predicates if not any(one.holds(facts) for facts in base)]
        start = f"{len(base)} {'layer matches' if len(base) == 1 else 'layers match'} `{selector.base.text}` but"
        if failed:
            return [f"{start} none has {one.text}{_nearest_to(one, base, limit)}" for one in failed]
        return [f"{start} none has all of {', '.join(one.text for one in selector.predicates)}"]
    if isinstance(selector, Both):
        counts = [f"`{one.text}` ({sum(matches(one, facts) for facts in all_facts)})" for one in selector.items]
        empty = [one for one in selector.items if not any(matches(one, facts) for facts in all_facts)]
        if not empty:
            return [f"no layer is in all of {', '.join(counts)}"]
        return [line for one in empty for line in _why_nothing(one, all_facts, limit)]
    kinds = sorted({kind for facts in all_facts for kind in facts.kinds})
    counts = [f"{kind} ({sum(kind in facts.kinds for facts in all_facts)})" for kind in kinds]
    has = f"the model has {', '.join(counts)}" if counts else "the model has none"
    return [f"no layer matches `{selector.text}`: {has}"]


def _nearest_to(predicate: Predicate, base: Sequence[Facts], limit: int) -> str:
    if predicate.fact == "name":
        if predicate.operator.startswith("!"):
            return ""
        wanted = predicate.value.pattern if isinstance(predicate.value, Regex) else str(predicate.value)
        ranked = sorted({one.name for one in base}, key=lambda name: (_distance(wanted, name), name))
        return f" (nearest names: {', '.join(ranked[:limit])})"
    actual = [predicate.actual(one) for one in base]
    if predicate.fact == "position" or not all(isinstance(one, float) for one in actual):
        return f" (they have {', '.join(sorted({_shown(one) for one in actual})[:limit])})"
    numbers = [one for one in actual if isinstance(one, float)]
    if predicate.operator in (">", ">="):
        return f" (largest: {_shown(max(numbers))})"
    if predicate.operator in ("<", "<="):
        return f" (smallest: {_shown(min(numbers))})"
    assert isinstance(predicate.value, int | float)
    wanted_number = predicate.value
    return f" (nearest: {_shown(min(numbers, key=lambda one: abs(one - wanted_number)))})"


def _shown(value: float | str | tuple[int, ...]) -> str:
    if isinstance(value, tuple):
        return "x".join(str(size) for size in value) or "no kernel"
    if isinstance(value, str):
        return value
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g}{unit}"
    return number_text(value)


_SEPARATORS = re.compile(r"[\W_]+")


def _distance(pattern: str, name: str) -> int:
    """How far a name is from the literal words of a pattern: each word against its nearest in the name."""
    words = [word for word in _SEPARATORS.split(pattern.lower()) if word]
    parts = [part for part in _SEPARATORS.split(name.lower()) if part]
    limit = 8
    total = 0
    for word in words:
        if word not in name.lower():
            total += 1 + min((edit_distance(word, part, limit) for part in parts), default=limit)
    return total
