"""What all checks share: the report, the schema, and the values of parameters."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from qcc.dsl.diagnostics.diagnostic import Related
from qcc.dsl.diagnostics.other_tools import Place
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.policy.policy import Quantity
from qcc.dsl.policy.schema import Schema
from qcc.dsl.syntax import tree as syntax
from qcc.dsl.syntax.literals import FAMILIES, UNITS, nearest_unit

MOST_SUGGESTIONS = 200


@dataclass
class Parameter:
    """A parameter's value and where its type comes from."""

    value: syntax.Literal
    declared: Span
    ours: bool
    """Declared in the file being checked, so that not using it is worth a warning."""
    used: bool = False


@dataclass
class CheckState:
    """The state of one check."""

    schema: Schema
    report: Diagnostics = field(default_factory=Diagnostics)
    params: dict[str, Parameter] = field(default_factory=dict)

    def suggest(self, word: str, known: Iterable[str], place: Place = "") -> str | None:
        """A help line, unless so much is wrong already that looking for spellings would take minutes."""
        return did_you_mean(word, known, place) if len(self.report.found) < MOST_SUGGESTIONS else None

    def literal(self, node: syntax.Literal) -> syntax.Literal | None:
        """A literal with its parameter, if it is one, put in; an unknown parameter is reported."""
        if not isinstance(node, syntax.Param):
            return node
        found = self.params.get(node.name)
        if found is None:
            help = self.suggest(node.name, self.params) if self.params else f"declare it: `param {node.name} = ...`"
            self.report.error("Q221", f"unknown parameter `${node.name}`", node.span, help=help)
            return None
        found.used = True
        return replace(found.value, span=node.span)

    def twice(self, message: str, span: Span, first: Span, help: str | None = None) -> None:
        """Report what stands a second time, and where it stood first."""
        related = (Related(first, "first here"),)
        self.report.error("Q206", message, span, help=help, note=f"first at {first.location}", related=related)

    def quantity(self, node: syntax.WrittenNumber) -> Quantity | None:
        """A number in the base unit of its family; an unknown unit or an absurd size is reported."""
        if abs(node.value) > 1e18:
            self.report.error("Q204", "the number is too large", node.span)
            return None
        if not node.unit:
            return Quantity(node.value)
        if node.unit not in UNITS:
            near = nearest_unit(node.unit)
            help = f"did you mean `{near}`?" if near else f"the units are {', '.join(UNITS)}"
            self.report.error("Q215", f"unknown unit `{node.unit}`", node.span, help=help)
            return None
        family, factor = UNITS[node.unit]
        return Quantity(node.value * factor, family)


def kind_of(node: syntax.Literal) -> str:
    """What a message calls the type of a literal."""
    match node:
        case syntax.WrittenNumber(unit=unit):
            family = UNITS[unit][0] if unit in UNITS else ""
            return FAMILIES[family].partition(" such as")[0]
        case syntax.Dims():
            return "extents"
        case syntax.String():
            return "a quoted text"
    return "a word"


def atoms_of(value: syntax.Alternatives) -> Iterator[syntax.Atom]:
    """All atoms of a value."""
    for term in value.terms:
        yield from term.atoms


def only_literal(value: syntax.Alternatives) -> syntax.Literal | None:
    """The literal that a value is, if it's no more than that."""
    atoms = list(atoms_of(value))
    if len(atoms) != 1 or isinstance(atoms[0], syntax.Braces | syntax.Invocation):
        return None
    return atoms[0]
