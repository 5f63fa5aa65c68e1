"""One diagnostic for one piece of text that the grammar refuses."""

from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property

from lark import Token, UnexpectedToken

from qcc.dsl.build_tree import tokens
from qcc.dsl.diagnostics import Diagnostics, Source, Span
from qcc.dsl.excerpt import escape
from qcc.dsl.mistakes import likely_mistake

CLOSERS = ("}", ",", ";")
NOTHING = Token("", "", 0, end_pos=0)


@dataclass(frozen=True)
class Place:
    """The piece of text that was parsed, and as what."""

    source: Source
    start: str
    first: int
    last: int
    keyword: Token | None
    """The word that began the statement round it."""


@dataclass(frozen=True)
class Failure:
    """Where the parser stopped in a piece, and what it would have taken."""

    place: Place
    token: Token
    accepts: Set[str]

    @cached_property
    def tokens(self) -> list[Token]:
        """The piece's tokens."""
        return tokens(self.place.source.text[self.place.first : self.place.last])

    @cached_property
    def index(self) -> int:
        """Which of them the parser stopped at; their number when it was the end."""
        if self.ended:
            return len(self.tokens)
        at = self.token.start_pos or 0
        return next((i for i, one in enumerate(self.tokens) if (one.end_pos or 0) > at), len(self.tokens))

    @property
    def ended(self) -> bool:
        """Whether the piece ended too early."""
        return self.token.type == "$END"

    @property
    def before(self) -> Token:
        """The token before the one it stopped at."""
        return self.tokens[self.index - 1] if 0 < self.index <= len(self.tokens) else NOTHING

    @property
    def after(self) -> Token:
        """The token after the one it stopped at."""
        return self.tokens[self.index + 1] if self.index + 1 < len(self.tokens) else NOTHING

    @property
    def rest(self) -> str:
        """What follows the token, to the end of the piece or line."""
        end = self.place.first + (self.token.end_pos or 0)
        return self.place.source.text[end : self.place.last].partition("\n")[0].strip()

    @property
    def here(self) -> str:
        """The token and what follows it, as written."""
        return self.place.source.text[self.span.start : self.place.last].partition("\n")[0].strip()

    @property
    def keyword(self) -> str:
        """The word that began the statement."""
        if self.place.keyword is not None:
            return str(self.place.keyword)
        return str(self.tokens[0]) if self.tokens else ""

    @property
    def span(self) -> Span:
        """Where to put the caret: the token, or just after the last one if the piece ended."""
        first = self.place.first
        if not self.ended:
            return Span(self.place.source, first + (self.token.start_pos or 0), first + (self.token.end_pos or 0))
        end = first + (self.before.end_pos or 0)
        text = self.place.source.text
        following = end + len(text[end : self.place.last + 80]) - len(text[end : self.place.last + 80].lstrip(" \t"))
        if text[following : following + 1] in CLOSERS:
            return Span(self.place.source, following, following + 1)
        return Span(self.place.source, end, end + 1)


def report_syntax_error(place: Place, failure: UnexpectedToken, report: Diagnostics) -> None:
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
_NAMES = {"MINIMIZE": "an objective", "TARGET": "a target", "LET": "a name", "PARAM": "a name"}


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
