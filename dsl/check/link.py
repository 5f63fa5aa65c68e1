"""A policy and all that it uses, as one list of statements in the order in which they count."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lark import UnexpectedToken

from qcc.dsl.check.context import CheckState, Parameter, kind_of, only_literal
from qcc.dsl.check.selectors import Scope, reserved
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.syntax import tree as syntax
from qcc.dsl.syntax.build_tree import TooDeepError, build_tree
from qcc.dsl.syntax.parse import parse

DEEPEST_USE = 32


class Loader(Protocol):
    """Finds what `use` names."""

    def load(self, name: str, span: Span) -> Source:
        """The source of a preset or of a file beside the using one.

        Raises:
            QccError: there is none, or it may not be used.
        """
        ...


@dataclass(frozen=True)
class Linked:
    """A statement and the file whose names it sees."""

    statement: syntax.Statement
    scope: Scope
    source: Source
    ours: bool
    """Stands in the policy itself, not in what it uses."""


@dataclass
class Linker:
    """Follows each `use` once, in order, and collects selectors and parameters on the way."""

    context: CheckState
    loader: Loader
    statements: list[Linked] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    scopes: dict[str, Scope] = field(default_factory=dict)
    """By source name: a file used twice is one file."""
    chain: list[str] = field(default_factory=list)

    def link(self, tree: syntax.File) -> Scope:
        """Add a file's statements after those of the files that it uses."""
        source = tree.span.source
        scope = Scope()
        self.scopes[source.name] = scope
        self.sources.append(source)
        self.chain.append(source.name)
        seen: dict[str, Span] = {}
        for at, statement in enumerate(tree.statements):
            match statement:
                case syntax.VersionLine():
                    self._version(statement, first=at == 0)
                case syntax.UseLine():
                    self._use(statement, scope, seen)
                case syntax.LetLine():
                    self._let(statement, scope)
                case syntax.ParamLine():
                    self._param(statement, seen)
                case syntax.RuleBlock() | syntax.AdapterLine() | syntax.MetricLine():
                    pass
                case _:
                    self._once(statement, statement.span.text.split("{")[0].split()[0].split("(")[0], seen)
            self.statements.append(Linked(statement, scope, source, len(self.chain) == 1))
        self.chain.pop()
        return scope

    def _once(self, node: syntax.SyntaxNode, what: str, seen: dict[str, Span]) -> bool:
        if what not in seen:
            seen[what] = node.span
            return True
        span = Span(node.span.source, node.span.start, node.span.start + len(what.split()[0]))
        self.context.twice(f"`{what}` is given twice", span, seen[what], help="keep one")
        return False

    def _version(self, statement: syntax.VersionLine, *, first: bool) -> None:
        if not first:
            message = "`qpolicy` stands at the start of a file, once"
            self.context.report.error("Q111", message, statement.span, help="remove this line")
        elif statement.number.value != 1 or statement.number.unit:
            message = f"unknown language version `{statement.number.span.text}`"
            self.context.report.error("Q106", message, statement.number.span, help="write `qpolicy 1`")

    def _use(self, statement: syntax.UseLine, scope: Scope, seen: dict[str, Span]) -> None:
        if not self._once(statement, f"use {statement.name.span.text}", seen):
            return
        try:
            source = self.loader.load(statement.name.text, statement.name.span)
            if source.name in self.chain:
                self._cycle(source.name, statement.name.span)
                return
            if source.name in self.scopes:
                scope.used.append(self.scopes[source.name])
                return
            if len(self.chain) > DEEPEST_USE:
                message = f"more than {DEEPEST_USE} files use one another"
                self.context.report.error("Q225", message, statement.name.span)
                return
            scope.used.append(self.link(parse(source)))
        except QccError as error:
            self.context.report.found += error.diagnostics

    def _cycle(self, name: str, span: Span) -> None:
        chain = [*self.chain[self.chain.index(name) :], name]
        message = "a file can't use itself" if len(chain) == 2 else "files use one another in a circle"
        note = None if len(chain) == 2 else " -> ".join(chain)
        self.context.report.error("Q225", message, span, note=note, help="remove one `use`")

    def _let(self, statement: syntax.LetLine, scope: Scope) -> None:
        name = statement.name
        if reserved(self.context, (*self.context.schema.kinds, *self.context.schema.subjects), name):
            return
        if name.text in scope.lets:
            self.context.twice(f"selector `{name.text}` is defined twice", name.span, scope.lets[name.text].name.span)
            return
        scope.lets[name.text] = statement

    def _param(self, statement: syntax.ParamLine, seen: dict[str, Span]) -> None:
        name, literal = statement.name, only_literal(statement.default)
        if f"param {name.text}" in seen:
            self.context.twice(f"parameter `{name.text}` is declared twice", name.span, seen[f"param {name.text}"])
            return
        seen[f"param {name.text}"] = name.span
        ours = len(self.chain) == 1
        if literal is None or isinstance(literal, syntax.Param):
            message = "a parameter is one number, word or text"
            self.context.report.error("Q203", message, statement.default.span)
            literal = None
        if isinstance(literal, syntax.WrittenNumber) and self.context.quantity(literal) is None:
            literal = None
        earlier = self.context.params.get(name.text)
        if earlier is not None and literal is not None:
            _check_type(self.context, name.text, earlier.value, literal)
        if literal is not None:
            self.context.params[name.text] = Parameter(literal, name.span, ours)
        elif earlier is None:
            # Its uses aren't to be blamed.
            self.context.params[name.text] = Parameter(
                syntax.WrittenNumber(name.span, 1, ""), name.span, ours, used=True
            )


def _check_type(context: CheckState, name: str, declared: syntax.Literal, given: syntax.Literal) -> bool:
    if kind_of(declared) == kind_of(given):
        return True
    message = f"parameter `{name}` is {kind_of(declared)}, not {kind_of(given)}"
    context.report.error("Q203", message, given.span, help=f"its default is `{declared.span.text}`")
    return False


def define(context: CheckState, definitions: Mapping[str, str]) -> None:
    """Give parameters the values of `-D name=value`."""
    for name, text in definitions.items():
        source = Source(f"-D {name}", text)
        whole = Span(source, 0, max(1, len(text)))
        if name not in context.params:
            help = did_you_mean(name, context.params) if context.params else "the policy has no parameters"
            context.report.error("Q222", f"the policy has no parameter `{name}`", whole, help=help)
            continue
        literal = _read_definition(source)
        if literal is None:
            message = f"`{text}` is no value for a parameter"
            context.report.error("Q203", message, whole, help="give one number, word or quoted text")
        elif _check_type(context, name, context.params[name].value, literal):
            context.params[name].value = literal


def _read_definition(source: Source) -> syntax.Literal | None:
    try:
        value = build_tree(source, "value", source.text)
    except (UnexpectedToken, TooDeepError):
        return None
    literal = only_literal(value) if isinstance(value, syntax.Alternatives) else None
    return None if isinstance(literal, syntax.Param) else literal


def spelled(params: Mapping[str, Parameter]) -> Iterator[tuple[str, str]]:
    """Each parameter and its value as written."""
    for name, one in params.items():
        yield name, one.value.span.text
