"""A frozen dataclass as a keyword with options: its fields are the names, types, bounds and defaults."""

import inspect
import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from qcc.dsl.syntax.literals import FAMILIES, number_text, percent_text, quote

OptionType = Literal["bool", "int", "float", "str", "words", "dims", "format", "method"]


@dataclass(frozen=True)
class Interval:
    """Bounds of a number, both included. Any object with ``low`` and ``high`` does as well."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Unit:
    """The unit that an option must be written with. Any object with ``unit`` does as well."""

    unit: str


@dataclass(frozen=True)
class Option:
    """One option of a keyword; of a format that is an option there may be ``many``, side by side."""

    name: str
    kind: OptionType
    words: tuple[str | int, ...] = ()
    unit: str = ""
    low: float | None = None
    high: float | None = None
    required: bool = True
    default: object = None
    summary: str = ""
    many: bool = False

    @property
    def expected(self) -> str:
        """What a message says that it takes."""
        if self.kind == "words":
            quoted = [f"`{word}`" for word in self.words]
            return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
        names = {"bool": "`true` or `false`", "str": "a text", "dims": "extents such as `16x1`"}
        names |= {"format": "formats" if self.many else "a format", "method": "a method"}
        if self.kind in names:
            return names[self.kind]
        base = FAMILIES[self.unit] if self.unit else "a whole number" if self.kind == "int" else "a number"
        low, high = (None if edge is None else option_text(self, edge) for edge in (self.low, self.high))
        if low is not None and high is not None:
            return f"{base} from {low} to {high}"
        return f"{base} of at least {low}" if low is not None else f"{base} up to {high}" if high is not None else base


Maker = Callable[..., object]
"""What options make something of: a frozen dataclass, or what stands in for one."""


@dataclass(frozen=True)
class StandIn:
    """In the place of a frozen dataclass, which is not loaded as long as its options are all that is asked.

    Args:
        options: of it.
        make: what is called with their values.
        summary: of it, in a line.
        beside: what its attribute of this name says, of a format's arguments.
    """

    options: Mapping[str, Option]
    make: Maker
    summary: str = ""
    beside: str = ""

    def __call__(self, **values: object) -> object:
        """As the dataclass is called."""
        return self.make(**values)


def summary_of(method: Maker) -> str:
    """The first line of what a method's page says."""
    return method.summary if isinstance(method, StandIn) else (method.__doc__ or "").partition("\n")[0]


def options_of(method: Maker) -> Mapping[str, Option]:
    """The options of a method, by name, in order.

    A class whose ``option_kind`` is ``format`` is spelled as a format, one whose is ``method`` by keyword and options.

    Raises:
        TypeError: a field's type has no spelling in the language.
    """
    return method.options if isinstance(method, StandIn) else _options_of(method)


@lru_cache(maxsize=256)
def _options_of(method: Hashable) -> Mapping[str, Option]:
    assert isinstance(method, type) and is_dataclass(method)
    hints = get_type_hints(method, include_extras=True)
    found = {}
    for one in fields(method):
        if not one.init:
            continue
        default = one.default
        if default is MISSING and one.default_factory is not MISSING:
            default = one.default_factory()
        found[one.name] = _option(one.name, hints[one.name], default, str(one.metadata.get("summary", "")))
    return found


def _option(name: str, hint: object, default: object, summary: str) -> Option:
    """An option of a type with notes: a text that sums it up, objects with ``low``, ``high``, ``unit`` or ``words``."""
    low = high = None
    words: tuple[str | int, ...] = ()
    unit = ""
    while True:
        if get_origin(hint) is Annotated:
            hint, *notes = get_args(hint)
            for note in notes:
                summary = note if isinstance(note, str) else summary
                low, high = getattr(note, "low", low), getattr(note, "high", high)
                unit = getattr(note, "unit", unit)
                words = getattr(note, "words", words)
        elif get_origin(hint) in (Union, types.UnionType):
            parts = [part for part in get_args(hint) if part is not type(None)]
            if len(parts) != 1:
                raise TypeError(f"option `{name}` has the type {hint}, which the language can't spell")
            hint = parts[0]
        else:
            break
    words = get_args(hint) if get_origin(hint) is Literal else words
    kinds: dict[Any, OptionType] = {bool: "bool", int: "int", float: "float", str: "str"}
    many = get_origin(hint) is tuple and get_args(hint)[1:] == (...,)
    kind: OptionType | None = "words" if words else "dims" if get_origin(hint) is tuple else kinds.get(hint)
    kind = getattr(get_args(hint)[0] if many else hint, "option_kind", kind)
    if kind is None:
        raise TypeError(f"option `{name}` has the type {hint}, which the language can't spell")
    required = default is MISSING
    many = many and kind == "format"
    return Option(name, kind, words, unit, low, high, required, None if required else default, summary, many)


def option_text(option: Option, value: object) -> str:
    """A value of an option as the language spells it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if option.kind == "format":
        given = value if isinstance(value, tuple) else (value,)
        return ", ".join(str(getattr(one, "text", one)) for one in given)
    if option.kind == "method":
        return method_text(value)
    if isinstance(value, tuple):
        return "x".join(str(size) for size in value)
    if isinstance(value, int | float):
        if option.unit == "%":
            return percent_text(value)
        return number_text(value) + (f" {option.unit}" if option.unit else "")
    text = str(value)
    if option.kind == "words" and text.isidentifier():
        return text
    return quote(text)


def method_text(value: object) -> str:
    """A method as the language spells it: its keyword, and its options in parentheses."""
    known = options_of(type(value))
    pairs = ((one, getattr(value, name)) for name, one in known.items())
    given = ", ".join(f"{one.name} = {option_text(one, setting)}" for one, setting in pairs if setting is not None)
    keyword = getattr(value, "keyword", "") or _keyword(type(value))
    return keyword + (f"({given})" if given else "")


def describe(method: type, keyword: str | None = None) -> str:
    """A method's manual page: its docstring, then a line for each option."""
    options = options_of(method)
    lines = [f"{keyword or _keyword(method)}{'(...)' if options else ''}", ""]
    lines += (inspect.getdoc(method) or "").splitlines()
    if options:
        lines += ["", "Options:"]
    width = max((len(name) for name in options), default=0)
    for name, one in options.items():
        default = "required" if one.required else "optional" if one.default is None else option_text(one, one.default)
        origin = default if one.required or one.default is None else f"default {default}"
        summary = f" {one.summary}" if one.summary else ""
        lines.append(f"  {name:<{width}}  {one.expected.replace('`', '')} ({origin}){'.' if summary else ''}{summary}")
    return "\n".join(lines).rstrip() + "\n"


def _keyword(method: type) -> str:
    name = method.__name__
    parts = [f"_{char.lower()}" if char.isupper() and at else char.lower() for at, char in enumerate(name)]
    return "".join(parts)
