"""The syntax tree: what was written, each piece with its place.

Two trees are equal when they say the same; places don't count.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from qcc.dsl.diagnostics.source import Span


@dataclass(frozen=True, eq=False, repr=False)
class SyntaxNode:
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
        values = (getattr(self, one.name) for one in fields(self) if one.compare)
        return [value for value in values if not isinstance(value, Span)]


@dataclass(frozen=True, eq=False, repr=False)
class Name(SyntaxNode):
    """A word."""

    text: str


@dataclass(frozen=True, eq=False, repr=False)
class WrittenNumber(SyntaxNode):
    """A number and the unit written after it, if any."""

    value: float
    unit: str
    digits: str = field(default="", compare=False)
    """As written, without the unit."""


@dataclass(frozen=True, eq=False, repr=False)
class Dims(SyntaxNode):
    """Extents such as ``16x1``."""

    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class String(SyntaxNode):
    """A quoted text, its escapes resolved."""

    text: str


@dataclass(frozen=True, eq=False, repr=False)
class RegexLiteral(SyntaxNode):
    """A regular expression between slashes."""

    pattern: str


@dataclass(frozen=True, eq=False, repr=False)
class Param(SyntaxNode):
    """``$name``: the value of a parameter."""

    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Braces(SyntaxNode):
    """``{a, b}``: each of these in turn."""

    items: tuple["Literal", ...]


@dataclass(frozen=True, eq=False, repr=False)
class Argument(SyntaxNode):
    """``value`` or ``name = value`` between parentheses."""

    name: Name | None
    value: "Alternatives"


@dataclass(frozen=True, eq=False, repr=False)
class Invocation(SyntaxNode):
    """``name(arguments)``."""

    name: Name
    arguments: tuple[Argument, ...]


Literal = Name | WrittenNumber | Dims | String | Param
Atom = Literal | Braces | Invocation


@dataclass(frozen=True, eq=False, repr=False)
class Phrase(SyntaxNode):
    """Words and numbers side by side: one candidate."""

    atoms: tuple[Atom, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Alternatives(SyntaxNode):
    """Terms separated by ``|``."""

    terms: tuple[Phrase, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(SyntaxNode):
    """``name ~ "glob"`` or another comparison, between brackets."""

    fact: Name
    operator: str
    operator_span: Span
    value: Literal | RegexLiteral


@dataclass(frozen=True, eq=False, repr=False)
class Class(SyntaxNode):
    """A class of layers, or a selector's name."""

    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Filter(SyntaxNode):
    """``base[predicates]``: all of them hold."""

    base: "SelectorTree"
    predicates: tuple[Comparison, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Or(SyntaxNode):
    """``a or b``, also spelled ``a, b``."""

    items: tuple["SelectorTree", ...]


@dataclass(frozen=True, eq=False, repr=False)
class And(SyntaxNode):
    """``a and b``."""

    items: tuple["SelectorTree", ...]


@dataclass(frozen=True, eq=False, repr=False)
class Negation(SyntaxNode):
    """``not a``."""

    item: "SelectorTree"


SelectorTree = Class | Filter | Or | And | Negation


@dataclass(frozen=True, eq=False, repr=False)
class PropertySetting(SyntaxNode):
    """``name = value``; a bare word such as ``keep`` has no value."""

    name: Name
    value: Alternatives | None


@dataclass(frozen=True, eq=False, repr=False)
class BoundTree(SyntaxNode):
    """``metric(argument) <= quantity``; an argument alone is a name, others say what they are."""

    metric: Name
    arguments: tuple[Argument, ...]
    relation: str
    relation_span: Span
    quantity: Literal


@dataclass(frozen=True, eq=False, repr=False)
class VersionLine(SyntaxNode):
    """``qpolicy 1``."""

    number: WrittenNumber


@dataclass(frozen=True, eq=False, repr=False)
class UseLine(SyntaxNode):
    """``use "preset or file"``."""

    name: String


@dataclass(frozen=True, eq=False, repr=False)
class ParamLine(SyntaxNode):
    """``param name = default``."""

    name: Name
    default: Alternatives


@dataclass(frozen=True, eq=False, repr=False)
class TargetLine(SyntaxNode):
    """``target name(arguments)``."""

    name: Name
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, eq=False, repr=False)
class CalibrateLine(SyntaxNode):
    """``calibrate "file" { settings }`` or ``calibrate generated { settings }``."""

    data: String | Name
    settings: tuple[PropertySetting, ...]


@dataclass(frozen=True, eq=False, repr=False)
class GraphLine(SyntaxNode):
    """``graph type``."""

    floats: Name


@dataclass(frozen=True, eq=False, repr=False)
class AdapterLine(SyntaxNode):
    """``adapter "file" { settings }``."""

    file: String
    settings: tuple[PropertySetting, ...]


@dataclass(frozen=True, eq=False, repr=False)
class SamplerLine(SyntaxNode):
    """``sampler "file" { settings }``."""

    file: String
    settings: tuple[PropertySetting, ...]


@dataclass(frozen=True, eq=False, repr=False)
class StepCacheBlock(SyntaxNode):
    """``step_cache { settings }``."""

    settings: tuple[PropertySetting, ...]


@dataclass(frozen=True, eq=False, repr=False)
class LetLine(SyntaxNode):
    """``let name = selector``."""

    name: Name
    selector: SelectorTree


@dataclass(frozen=True, eq=False, repr=False)
class RuleBlock(SyntaxNode):
    """``rule selector { settings }``."""

    selector: SelectorTree
    settings: tuple[PropertySetting, ...]


@dataclass(frozen=True, eq=False, repr=False)
class BudgetBlock(SyntaxNode):
    """``budget { bounds }``."""

    bounds: tuple[BoundTree, ...]


@dataclass(frozen=True, eq=False, repr=False)
class MetricLine(SyntaxNode):
    """``metric name on selector``; ``joint`` is what stands for ``on``."""

    metric: Name
    joint: Name
    selector: SelectorTree


@dataclass(frozen=True, eq=False, repr=False)
class MinimizeLine(SyntaxNode):
    """``minimize objective``, or ``minimize max(objective, ...)``."""

    objective: Name
    among: tuple[Argument, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class VerifyBlock(SyntaxNode):
    """``verify { bounds }``."""

    bounds: tuple[BoundTree, ...]


@dataclass(frozen=True, eq=False, repr=False)
class ExportBlock(SyntaxNode):
    """``export { settings }``."""

    settings: tuple[PropertySetting, ...]


@dataclass(frozen=True, eq=False, repr=False)
class DepthBlock(SyntaxNode):
    """``depth { settings }``."""

    settings: tuple[PropertySetting, ...]


@dataclass(frozen=True, eq=False, repr=False)
class ReconstructBlock(SyntaxNode):
    """``reconstruct { settings }``."""

    settings: tuple[PropertySetting, ...]


Statement = (
    VersionLine
    | UseLine
    | ParamLine
    | TargetLine
    | CalibrateLine
    | GraphLine
    | AdapterLine
    | SamplerLine
    | StepCacheBlock
    | LetLine
    | RuleBlock
    | BudgetBlock
    | MetricLine
    | MinimizeLine
    | VerifyBlock
    | ExportBlock
    | DepthBlock
    | ReconstructBlock
)


@dataclass(frozen=True, eq=False, repr=False)
class File(SyntaxNode):
    """A whole policy file."""

    statements: tuple[Statement, ...]


def to_text(tree: SyntaxNode) -> str:
    """The tree as stable text: one node a line, children indented, places as ``line:column``."""
    return "".join(line + "\n" for line in _lines(tree, "", ""))


def _lines(node: SyntaxNode, indent: str, label: str) -> Iterator[str]:
    inline, nested = [], []
    for one in (one for one in fields(node) if one.compare):
        value = getattr(node, one.name)
        if isinstance(value, SyntaxNode):
            nested.append((one.name, value))
        elif isinstance(value, tuple) and value and isinstance(value[0], SyntaxNode):
            nested += [(one.name, child) for child in value]
        elif not isinstance(value, Span):
            inline.append(f"{one.name}={value!r}")
    place = f"@{node.span.line}:{node.span.column}"
    yield " ".join([indent + label + type(node).__name__, *inline, place])
    for name, child in nested:
        yield from _lines(child, indent + "  ", f"{name}: ")
