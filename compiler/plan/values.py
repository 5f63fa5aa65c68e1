"""Reading formats and actions as the policy language spells them, wherever they stand: in a plan's text, or alone."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

from lark import UnexpectedToken

from qcc.compiler.plan.catalog import activations, keyword_of, passes, rewrites, roundings, schema
from qcc.compiler.plan.formats import encoding_of, families
from qcc.dsl.check.context import CheckState, only_literal
from qcc.dsl.check.formats import read_formats
from qcc.dsl.check.options import WRONG, read_method, read_option
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.policy.options import options_of
from qcc.dsl.syntax import tree as syntax
from qcc.dsl.syntax.build_tree import TooDeepError, build_tree
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.forms.find import forms
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.contract import Pass, Rounding
from qcc.passes.contract.subject import SubjectPass
from qcc.passes.encode import Encode

T = TypeVar("T")
ENCODE = keyword_of(Encode)
FORMAT, ROUNDING, FORM, ACTIVATIONS = "encoding", "rounding", "form", "activations"
"""The arguments of `encode`; the first has no name."""
WRITTEN = "write `encode(int8 channel, rounding = nearest, form = decoded)`"


class WrongValueError(Exception):
    """A value is wrong, which is reported."""


class ValueReader:
    """Reads values that stand in a source.

    Args:
        source: the text that they are part of.
        report: told what is wrong with them.
    """

    def __init__(self, source: Source, report: Diagnostics) -> None:
        self._source = source
        self._context = CheckState(schema(), report)

    def encoding(self, span: Span) -> Encoding | None:
        """The encoding that a format names; None for ``float``.

        Raises:
            WrongValueError: it is none.
        """
        parsed = self._parsed("value", span)
        assert isinstance(parsed, syntax.Alternatives)
        return self._encoding(parsed)

    def action(self, span: Span) -> Pass:
        """The pass with its options.

        Raises:
            WrongValueError: it is none.
        """
        parsed = self._parsed("argument", span)
        assert isinstance(parsed, syntax.Argument)
        if parsed.name is not None:
            found = rewrites().get(parsed.name.text)
            if found is None:
                help = did_you_mean(parsed.name.text, rewrites())
                raise self._wrong(f"unknown pass `{parsed.name.text}`", parsed.name.span, help)
            return self._method(parsed.name.text, parsed.value, found, Pass)  # type: ignore[type-abstract]
        first = parsed.value.terms[0].atoms[0]
        named = first.name if isinstance(first, syntax.Invocation) else first
        if isinstance(named, syntax.Name) and named.text == ENCODE:
            if not isinstance(first, syntax.Invocation) or parsed.span != first.span:
                raise self._wrong(f"`{ENCODE}` has all that it says in brackets", parsed.span, WRITTEN)
            return self._encode(first)
        definition = passes().get(named.text) if isinstance(named, syntax.Name) else None
        if definition is not None and issubclass(definition, SubjectPass) and isinstance(first, syntax.Invocation):
            return self._subject_pass(first, definition)
        return self._method("plan", parsed.value, passes(), Pass)  # type: ignore[type-abstract]

    def _subject_pass(self, call: syntax.Invocation, definition: type[SubjectPass]) -> SubjectPass:
        """The storing of what is no layer, some of whose options are formats."""
        known, given = options_of(definition), dict[str, object]()
        for one in call.arguments:
            name = "" if one.name is None else one.name.text
            if name not in known or name in given:
                wrong = "is given twice" if name in given else f"is no option of `{call.name.text}`"
                raise self._wrong(f"`{one.span.text}` {wrong}", one.span, did_you_mean(name, known))
            if known[name].kind == "format":
                given[name] = self._encoding(one.value)
            elif known[name].kind == "method":
                given[name] = self._method(name, one.value, activations(), Activations)  # type: ignore[type-abstract]
            elif (read := read_option(self._context, known[name], one.value)) is not WRONG:
                given[name] = read
            else:
                raise WrongValueError
        return definition(**given)

    def _encode(self, call: syntax.Invocation) -> Encode:
        """The storing of weights, whose arguments are those of several properties of the language."""
        given: dict[str, syntax.Alternatives] = {}
        for one in call.arguments:
            name = FORMAT if one.name is None else one.name.text
            if name not in (FORMAT, ROUNDING, FORM, ACTIVATIONS):
                help = did_you_mean(name, (ROUNDING, FORM, ACTIVATIONS))
                raise self._wrong(f"unknown option of `{ENCODE}`: `{name}`", one.span, help)
            if name in given:
                raise self._wrong(f"the {name} is given twice", one.span, "remove one")
            given[name] = one.value
        for name in (FORMAT, ROUNDING, FORM):
            if name not in given:
                raise self._wrong(f"`{ENCODE}` does not say its {name}", call.span, WRITTEN)
        encoding = self._encoding(given[FORMAT])
        if encoding is None:
            raise self._wrong("`float` is not encoded", given[FORMAT].span, "list the weight under `keep`")
        form, asked = only_literal(given[FORM]), given.get(ACTIVATIONS)
        name = form.text if isinstance(form, syntax.Name) else ""
        if name not in forms():
            raise self._wrong(f"unknown form `{given[FORM].span.text}`", given[FORM].span, did_you_mean(name, forms()))
        rounding = self._method(ROUNDING, given[ROUNDING], roundings(), Rounding)  # type: ignore[type-abstract]
        how = None
        if asked is not None:
            how = self._method(ACTIVATIONS, asked, activations(), Activations)  # type: ignore[type-abstract]
        return Encode(encoding, rounding, forms()[name], how)

    def _encoding(self, value: syntax.Alternatives) -> Encoding | None:
        found = read_formats(self._context, value, families())
        if found is None:
            raise WrongValueError
        if len(found) > 1:
            raise self._wrong(f"one format is expected, not {len(found)}", value.span, "nothing is left to choose here")
        return encoding_of(found[0])

    def _method(self, owner: str, value: syntax.Alternatives, known: Mapping[str, type], kind: type[T]) -> T:
        found = read_method(self._context, owner, value, known)
        if found is None:
            raise WrongValueError
        assert isinstance(found[1], kind)
        return found[1]

    def _parsed(self, start: str, span: Span) -> syntax.SyntaxNode:
        try:
            return build_tree(self._source, start, span.text, span.start)
        except UnexpectedToken as failure:
            token = failure.token
            at = span.end if token.type == "$END" else span.start + (token.start_pos or 0)
            found = "the line ends" if token.type == "$END" else f"`{token}` is unexpected"
            place = Span(self._source, min(at, span.end - 1), max(at + len(token), at + 1))
            raise self._wrong(f"{found}: this is no {'format' if start == 'value' else 'pass'}", place, None) from None
        except TooDeepError as failure:
            raise self._wrong("nested too deep", span, None) from failure

    def _wrong(self, message: str, span: Span, help: str | None) -> WrongValueError:
        self._context.report.error("Q651", message, span, help=help)
        return WrongValueError()


@lru_cache(maxsize=1024)
def encoding_named(text: str) -> Encoding | None:
    """The encoding that the language calls so; None if it calls none so."""
    source = Source("<plan>", text)
    try:
        return ValueReader(source, Diagnostics()).encoding(Span(source, 0, len(text)))
    except WrongValueError:
        return None
