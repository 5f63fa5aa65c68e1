"""The manual: a page for everything that a policy may name."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

from qcc.compiler.console import terminal
from qcc.compiler.plan.catalog import after, passes, promises, schema
from qcc.dsl.policy.options import describe, summary_of
from qcc.dsl.policy.schema import FormatFamily, Metric, Off, Property, TargetKind, Word
from qcc.dsl.syntax.literals import FAMILIES
from qcc.passes.contract.contract import Pass, SitePass


@dataclass(frozen=True)
class ManualEntry:
    """Something that has a name and a page."""

    section: str
    name: str
    summary: str
    page: Callable[[], str]

    @property
    def value(self) -> str:
        """The name without the property that it is a value of."""
        return self.name.rpartition(" = ")[2]


def entries() -> list[ManualEntry]:
    """All there is, section by section."""
    known = schema()
    found = [
        ManualEntry("passes", keyword, _summary(one), _pass_page(keyword, one)) for keyword, one in passes().items()
    ]
    for prop in known.properties.values():
        found.append(ManualEntry("properties of a rule", prop.name, prop.summary, _property_page(prop)))
    for prop in known.properties.values():
        section = f"values of `{prop.name}`"
        for keyword, method in prop.methods.items():
            if method is not Off:
                assert isinstance(method, type)
                name, page = _value_name(keyword, method), _method_page(keyword, method)
                found.append(ManualEntry(section, name, _summary(method), page))
    found += [ManualEntry("formats", one.keyword, one.summary, _format_page(one)) for one in known.formats.values()]
    found += [ManualEntry("targets", one.name, one.summary, _target_page(one)) for one in known.targets.values()]
    found += [
        ManualEntry("bounds of `budget`", one.name, one.summary, _metric_page(one)) for one in known.budget.values()
    ]
    found += [
        ManualEntry("bounds of `verify`", one.name, one.summary, _metric_page(one)) for one in known.verify.values()
    ]
    if isinstance(known.export, type):
        found.append(ManualEntry("blocks", "export", _summary(known.export), _method_page("export", known.export)))
    return found


def _value_name(keyword: str, method: type) -> str:
    """A pass goes by its property and its value: several may be called ``on``."""
    return f"{method.property} = {keyword}" if issubclass(method, SitePass) else keyword


def _summary(definition: type) -> str:
    return (inspect.getdoc(definition) or "").partition("\n")[0].rstrip(".")


def _pass_page(keyword: str, definition: type[Pass]) -> Callable[[], str]:
    """The driver gives a pass its options, so its page is its docstring."""
    lines = [keyword, "", inspect.getdoc(definition) or "", "", *_promises(definition)]
    return lambda: "\n".join(lines) + "\n"


def _method_page(keyword: str, method: type) -> Callable[[], str]:
    if not issubclass(method, SitePass):
        return lambda: describe(method, keyword)
    page, promises = describe(method, _value_name(keyword, method)), _promises(method)
    return lambda: "\n".join([page, *promises]) + "\n"


def _promises(definition: type[Pass]) -> list[str]:
    before = after(definition)
    return [f"Keeps: {promises(definition)}", *([f"After: {', '.join(before)}"] if before else [])]


def _property_page(prop: Property) -> Callable[[], str]:
    lines = [prop.name, "", _sentence(prop.summary)]
    if prop.methods:
        lines += [
            "",
            "Values:",
            *_pairs([(keyword, summary_of(method).rstrip(".")) for keyword, method in prop.methods.items()]),
        ]
    else:
        formats = prop.formats or schema().formats
        lines += ["", "Formats, `|` between alternatives:"]
        lines += _pairs([(_spelling(one), one.summary) for one in formats.values()])
    return lambda: "\n".join(lines) + "\n"


def _spelling(one: FormatFamily) -> str:
    if one.bits is None:
        return one.keyword
    keyword = f"{one.keyword}{' ' if one.spaced else ''}"
    return f"{keyword}{one.bits[0]} to {keyword}{one.bits[1]}"


def _format_page(one: FormatFamily) -> Callable[[], str]:
    if isinstance(one.arguments, type):
        method = one.arguments
        return lambda: describe(method, one.keyword)
    lines = [_spelling(one), "", _sentence(one.summary)]
    groups: dict[str, list[str]] = {}
    for name, word in one.words.items():
        groups.setdefault(word.excludes or name, []).append(_word(name, word))
    if groups:
        lines += [
            "",
            "Words after it, at most one of each line:",
            *(f"  {' | '.join(words)}" for words in groups.values()),
        ]
    return lambda: "\n".join(lines) + "\n"


def _word(name: str, word: Word) -> str:
    if word.argument is None:
        return name
    if word.argument == "int":
        return f"{name} N"
    return f"{name} RxC" if word.argument == "tile" else f"{name} {'/'.join(word.argument)}"


def _target_page(one: TargetKind) -> Callable[[], str]:
    arguments = "" if one.arguments == () else f"({', '.join(one.arguments or ('...',))})"
    return lambda: f"{one.name}{arguments}\n\n{_sentence(one.summary)}\n"


def _metric_page(one: Metric) -> Callable[[], str]:
    bounds = [_range(low, high, unit) for unit, (low, high) in one.units.items()]
    lines = [f"{one.name} {one.relation} ...", "", _sentence(one.summary), "", f"Its bound: {', or '.join(bounds)}."]
    return lambda: "\n".join(lines) + "\n"


def _range(low: float, high: float, unit: str) -> str:
    what = FAMILIES[unit].replace("`", "") if unit else "a number"
    return f"{what} from {low:g} to {high:g}" if math.isfinite(high) else what


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _pairs(rows: list[tuple[str, str]]) -> list[str]:
    return terminal.pairs(rows, "  ").splitlines()
