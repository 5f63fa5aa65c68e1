"""Names that a policy gives: where each is defined, where it is used, and what it would be under another."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from qcc.compiler.editor.document import Document
from qcc.dsl.check.context import CheckState
from qcc.dsl.check.link import Linker
from qcc.dsl.diagnostics.diagnostic import Diagnostic, TextEdit
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.load import FileLoader
from qcc.dsl.policy.schema import Schema
from qcc.dsl.syntax import tree as syntax
from qcc.dsl.syntax.mistakes import STATEMENTS
from qcc.dsl.syntax.parse import parse

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class NameUse:
    """A name where it stands, the definition included."""

    sort: Literal["let", "param"]
    name: str
    span: Span
    """Of the name alone, without `$`."""


@dataclass(frozen=True)
class _Linked:
    tree: syntax.File
    linker: Linker

    def lets(self) -> dict[str, Span]:
        scope = self.linker.scopes[self.tree.span.source.name]
        found = ((name, scope.find(name)) for name in scope.names())
        return {name: one[1].name.span for name, one in found if one is not None}

    def params(self) -> dict[str, Span]:
        return {name: one.declared for name, one in self.linker.context.params.items()}


def _linked(document: Document, schema: Schema) -> _Linked | None:
    """The text with what it uses; None while it cannot be parsed."""
    try:
        tree = parse(document.source)
    except QccError:
        return None
    linker = Linker(CheckState(schema), FileLoader(document.folder))
    linker.link(tree)
    return _Linked(tree, linker)


def visible(document: Document, schema: Schema) -> tuple[list[str], list[str]]:
    """The selectors and the parameters that may be named; in a text that cannot be parsed, those that it defines."""
    linked = _linked(document, schema)
    if linked is not None:
        return [*linked.lets()], [*linked.params()]
    found = [
        re.findall(rf"^[ \t]*{word}[ \t]+({NAME.pattern})", document.text, re.MULTILINE) for word in ("let", "param")
    ]
    return found[0], found[1]


def definition(document: Document, offset: int, schema: Schema) -> Span | None:
    """Where what is named at a place is defined: a `let`, a `param`, or a file or preset that is used."""
    linked = _linked(document, schema)
    if linked is None:
        return None
    for statement in linked.tree.statements:
        if isinstance(statement, syntax.UseLine) and _holds(statement.name.span, offset):
            try:
                source = FileLoader(document.folder).load(statement.name.text, statement.name.span)
            except QccError:
                return None
            return Span(source, 0, 0)
    use = _at(linked.tree, offset)
    if use is None:
        return None
    return (linked.lets() if use.sort == "let" else linked.params()).get(use.name)


def uses(document: Document, offset: int, schema: Schema) -> list[Span]:
    """Every place of this text where the name at a place stands."""
    linked = _linked(document, schema)
    use = None if linked is None else _at(linked.tree, offset)
    if linked is None or use is None:
        return []
    return [one.span for one in _uses(linked.tree) if (one.sort, one.name) == (use.sort, use.name)]


def rename(document: Document, offset: int, new: str, schema: Schema) -> list[TextEdit]:
    """The edits that give what is named at a place another name.

    Raises:
        QccError: nothing of this text is named there, or the new name is none or is taken.
    """
    linked = _linked(document, schema)
    if linked is None:
        raise _refused("a text with syntax errors cannot be renamed in", "mend them first")
    use = _at(linked.tree, offset)
    places = linked.lets() if use is not None and use.sort == "let" else linked.params()
    home = None if use is None else places.get(use.name)
    if use is None or home is None:
        raise _refused("only what a `let` or a `param` names can be renamed", None)
    if home.source.name != document.source.name:
        raise _refused(f"`{use.name}` is defined in {home.source.name}", "rename it there")
    if NAME.fullmatch(new) is None:
        raise _refused(f"`{new}` is no name", "a name is letters, digits and `_`")
    taken = (
        *places,
        *(() if use.sort == "param" else (*schema.kinds, *schema.subjects, "any", "and", "or", "not", *STATEMENTS)),
    )
    if new != use.name and new in taken:
        raise _refused(f"`{new}` already means something", "choose another name")
    return [TextEdit(span, new) for span in uses(document, offset, schema)]


def _refused(message: str, help: str | None) -> QccError:
    return QccError([Diagnostic("Q590", message, help=help)])


def _at(tree: syntax.File, offset: int) -> NameUse | None:
    return next((one for one in _uses(tree) if _holds(one.span, offset)), None)


def _holds(span: Span, offset: int) -> bool:
    return span.start <= offset <= span.end


def _uses(tree: syntax.File) -> Iterator[NameUse]:
    """All names of selectors and parameters; a class of layers may look like one, and is told by who asks."""
    for statement in tree.statements:
        if isinstance(statement, syntax.LetLine):
            yield NameUse("let", statement.name.text, statement.name.span)
        elif isinstance(statement, syntax.ParamLine):
            yield NameUse("param", statement.name.text, statement.name.span)
    for node in _nodes(tree):
        if isinstance(node, syntax.Class):
            yield NameUse("let", node.name, Span(node.span.source, node.span.start, node.span.start + len(node.name)))
        elif isinstance(node, syntax.Param):
            yield NameUse("param", node.name, Span(node.span.source, node.span.start + 1, node.span.end))


def _nodes(node: syntax.SyntaxNode) -> Iterator[syntax.SyntaxNode]:
    yield node
    for one in fields(node):
        value = getattr(node, one.name)
        for child in value if isinstance(value, tuple) else (value,):
            if isinstance(child, syntax.SyntaxNode):
                yield from _nodes(child)
