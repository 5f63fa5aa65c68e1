"""The syntax tree: what was written, each piece with its place.

Two trees are equal when they say the same; places don't count.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from qcc.dsl.diagnostics.source import Span


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """Anything written in a policy."""

    span: Span

    # Written once here rather than generated thirty times: that was a tenth of `qcc check`.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._said() == other._said()

    def __hash__(self) -> int:
        return hash((type(self), *self._said()))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.span.text!r}>"

    def _said(self) -> list[object]:
        values = (getattr(self, one.name) for one in fields(self))
        return [value for value in values if not isinstance(value, Span)]


@dataclass(frozen=True, eq=False, repr=False)
class Name(Node):
    """A word."""

    text: str


@dataclass(frozen=True, eq=False, repr=False)
class Number(Node):
    """A number and the unit written after it, if any."""

    value: float
    unit: str


@dataclass(frozen=True, eq=False, repr=False)
class Dims(Node):
    """Extents such as ``16x1``."""

    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class String(Node):
    """A quoted text, its escapes resolved."""

    text: str


@dataclass(frozen=True, eq=False, repr=False)
class Regex(Node):
    """A regular expression between slashes."""

    pattern: str


@dataclass(frozen=True, eq=False, repr=False)
class Param(Node):
    """``$name``: the value of a parameter."""

    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Grid(Node):
    """``{a, b}``: each of these in turn."""

    items: tuple["Literal", ...]


@dataclass(frozen=True, eq=False, repr=False)
class Argument(Node):
    """``value`` or ``name = value`` between parentheses."""

    name: Name | None
    value: "Value"


@dataclass(frozen=True, eq=False, repr=False)
class Call(Node):
    """``name(arguments)``."""

    name: Name
    arguments: tuple[Argument, ...]


Literal = Name | Number | Dims | String | Param
Atom = Literal | Grid | Call


@dataclass(frozen=True, eq=False, repr=False)
class Term(Node):
    """Words and numbers side by side: one candidate."""

    atoms: tuple[Atom, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Value(Node):
    """Terms separated by ``|``."""

    terms: tuple[Term, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Predicate(Node):
    """``name ~ "glob"`` or another comparison, between brackets."""

    fact: Name
    operator: str
    operator_span: Span
    value: Literal | Regex


@dataclass(frozen=True, eq=False, repr=False)
class Class(Node):
    """A class of layers, or a selector's name."""

    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Filter(Node):
    """``base[predicates]``: all of them hold."""

    base: "Selector"
    predicates: tuple[Predicate, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Either(Node):
    """``a or b``, also spelled ``a, b``."""

    items: tuple["Selector", ...]


@dataclass(frozen=True, eq=False, repr=False)
class Both(Node):
    """``a and b``."""

    items: tuple["Selector", ...]


@dataclass(frozen=True, eq=False, repr=False)
class Negation(Node):
    """``not a``."""

    item: "Selector"


Selector = Class | Filter | Either | Both | Negation


@dataclass(frozen=True, eq=False, repr=False)
class Setting(Node):
    """``name = value``; a bare word such as ``keep`` has no value."""

    name: Name
    value: Value | None


@dataclass(frozen=True, eq=False, repr=False)
class Bound(Node):
    """``metric(argument) <= quantity``."""

    metric: Name
    argument: Name | None
    relation: str
    relation_span: Span
    quantity: Literal


@dataclass(frozen=True, eq=False, repr=False)
class VersionLine(Node):
    """``qpolicy 1``."""

    number: Number


@dataclass(frozen=True, eq=False, repr=False)
class UseLine(Node):
    """``use "preset or file"``."""

    name: String


@dataclass(frozen=True, eq=False, repr=False)
class ParamLine(Node):
    """``param name = default``."""

    name: Name
    default: Value


@dataclass(frozen=True, eq=False, repr=False)
class TargetLine(Node):
    """``target name(arguments)``."""

    name: Name
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, eq=False, repr=False)
class CalibrateLine(Node):
    """``calibrate "file" { settings }`` or ``calibrate generated { settings }``."""

    data: String | Name
    settings: tuple[Setting, ...]


@dataclass(frozen=True, eq=False, repr=False)
class LetLine(Node):
    """``let name = selector``."""

    name: Name
    selector: Selector


@dataclass(frozen=True, eq=False, repr=False)
class RuleBlock(Node):
    """``rule selector { settings }``."""

    selector: Selector
    settings: tuple[Setting, ...]


@dataclass(frozen=True, eq=False, repr=False)
class BudgetBlock(Node):
    """``budget { bounds }``."""

    bounds: tuple[Bound, ...]


@dataclass(frozen=True, eq=False, repr=False)
class MinimizeLine(Node):
    """``minimize objective``."""

    objective: Name


@dataclass(frozen=True, eq=False, repr=False)
class VerifyBlock(Node):
    """``verify { bounds }``."""

    bounds: tuple[Bound, ...]


@dataclass(frozen=True, eq=False, repr=False)
class ExportBlock(Node):
    """``export { settings }``."""

    settings: tuple[Setting, ...]


Statement = (
    VersionLine
    | UseLine
    | ParamLine
    | TargetLine
    | CalibrateLine
    | LetLine
    | RuleBlock
    | BudgetBlock
    | MinimizeLine
    | VerifyBlock
    | ExportBlock
)


@dataclass(frozen=True, eq=False, repr=False)
class File(Node):
    """A whole policy file."""

    statements: tuple[Statement, ...]


def to_text(tree: Node) -> str:
    """The tree as stable text: one node a line, children indented, places as ``line:column``."""
    return "".join(line + "\n" for line in _lines(tree, "", ""))


def _lines(node: Node, indent: str, label: str) -> Iterator[str]:
    inline, nested = [], []
    for one in fields(node):
        value = getattr(node, one.name)
        if isinstance(value, Node):
            nested.append((one.name, value))
        elif isinstance(value, tuple) and value and isinstance(value[0], Node):
            nested += [(one.name, child) for child in value]
        elif not isinstance(value, Span):
            inline.append(f"{one.name}={value!r}")
    place = f"@{node.span.line}:{node.span.column}"
    yield " ".join([indent + label + type(node).__name__, *inline, place])
    for name, child in nested:
        yield from _lines(child, indent + "  ", f"{name}: ")
