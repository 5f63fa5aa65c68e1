"""One diagnostic for one piece of text that the grammar refuses."""

from collections.abc import Set

from lark import UnexpectedToken

from qcc.dsl.diagnostics.excerpt import escape
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.syntax.failure import CLOSERS, Failure, FailurePlace
from qcc.dsl.syntax.mistakes import likely_mistake


def report_syntax_error(place: FailurePlace, failure: UnexpectedToken, report: Diagnostics) -> None:
    """Say what was expected, what was found, and what was probably meant."""
    accepts = frozenset(failure.accepts or failure.expected)
    where = Failure(place, failure.token, accepts)
    kind, text = where.token.type, str(where.token)
    if kind == "UNTERMINATED":
        span = Span(place.source, where.span.start, where.span.start + len(text.rstrip()))
        report.error("Q103", "unterminated string", span, help='close it with `"` on the same line')
        return
    mistake = likely_mistake(where)
    if kind == "STRAY" and not mistake and not (text.isprintable() and text.isascii()):
        name = f"U+{ord(text):04X}"
        message = f"unexpected character {name}" + (f" `{text}`" if text.isprintable() else "")
        report.error("Q104", message, where.span, help="only strings and comments may hold it")
        return
    message = mistake.message if mistake and mistake.message else f"{_expected(where)}{_found(where)}"
    span = mistake.span if mistake and mistake.span else where.span
    code = mistake.code if mistake else "Q101"
    report.error(code, message, span, help=mistake.help if mistake else None)


def _expected(where: Failure) -> str:
    if where.index == 0:
        names = {"setting": "a setting", "bound": "a bound such as `size <= 25%`", "value": "a value"}
        return f"expected {names.get(where.place.start, 'a statement')}, found "
    if "EQUAL" in where.accepts and "PIPE" not in where.accepts and where.place.start == "setting":
        return "expected `=`, found "
    if "$END" in where.accepts and not where.ended:
        return "unexpected "
    return f"expected {_phrase(where.accepts, where.before.type)}, found "


def _found(where: Failure) -> str:
    if not where.ended:
        text = escape(str(where.token))
        bare = "EQUAL" in where.accepts and where.place.start == "setting"
        after = f" after `{where.before}`" if "$END" in where.accepts and where.index and not bare else ""
        return f"`{text if len(text) <= 40 else text[:37] + '...'}`{after}"
    following = where.place.source.text[where.place.last : where.place.last + 80].lstrip(" \t")[:1]
    if not where.place.source.text[where.place.last :].strip():
        return "the end of the file"
    return f"`{following}`" if following in CLOSERS else "the end of the line"


_PHRASES = {
    "EQUAL": "`=`",
    "COMPARISON": "a comparison such as `<=`",
    "MATCH": "`~`",
    "LEFT_BRACE": "`{`",
    "RIGHT_BRACE": "`}`",
    "RIGHT_PARENTHESIS": "`)`",
    "RIGHT_BRACKET": "`]`",
    "LEFT_BRACKET": "`[`",
    "LEFT_PARENTHESIS": "`(`",
    "COMMA": "`,`",
    "STRING": "a quoted string",
    "NUMBER": "a number",
    "NAME": "a name",
}
_NAMES = {
    "MINIMIZE": "an objective",
    "GRAPH": "a type of numbers",
    "TARGET": "a target",
    "LET": "a name",
    "PARAM": "a name",
}


def _phrase(accepts: Set[str], before: str) -> str:
    if "NOT" in accepts:
        return "a selector such as `linear`"
    if {"NAME", "NUMBER", "STRING"} <= accepts:
        return "a value"
    if "LEFT_BRACE" in accepts and "COMMA" in accepts:
        return "`{`"
    if before == "LEFT_BRACKET" and "NAME" in accepts:
        return "a predicate such as `params > 100k`"
    if before in _NAMES:
        return _NAMES[before]
    if "COMPARISON" in accepts:
        accepts = accepts - {"LEFT_PARENTHESIS"}
    phrases = [phrase for kind, phrase in _PHRASES.items() if kind in accepts]
    return " or ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases) or "something else"
