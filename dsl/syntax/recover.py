"""After a syntax error: cut the text into statements and settings, and judge each by itself.

One mistake then gives one diagnostic, and the statements after it still get theirs.
"""

from dataclasses import dataclass, field

from lark import Token, UnexpectedToken

from qcc.dsl.diagnostics.diagnostic import Related
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.syntax.build_tree import CLOSING, OPENING, OPERATORS, TooDeepError, build_tree, tokens
from qcc.dsl.syntax.failure import FailurePlace
from qcc.dsl.syntax.syntax_errors import report_syntax_error

BLOCKLESS = frozenset({"QPOLICY", "USE", "PARAM", "TARGET", "LET", "MINIMIZE", "GRAPH"})
"""Statements that have no `{ ... }` of their own."""
KEYWORDS = BLOCKLESS | {"CALIBRATE", "ADAPTER", "SAMPLER", "STEP_CACHE", "RULE", "BUDGET", "VERIFY", "EXPORT", "DEPTH"}

MOST_ERRORS = 10_000
"""A file with more has another problem."""

_PAIRS = {
    "LEFT_PARENTHESIS": "RIGHT_PARENTHESIS",
    "LEFT_BRACKET": "RIGHT_BRACKET",
    "LEFT_BRACE": "RIGHT_BRACE",
}
_SHOWN = {"RIGHT_PARENTHESIS": ")", "RIGHT_BRACKET": "]", "RIGHT_BRACE": "}"}


def syntax_errors(source: Source, failure: UnexpectedToken | TooDeepError, report: Diagnostics) -> None:
    """Report all syntax errors of a text that failed to parse as a whole with ``failure``."""
    _Cutter(source, report, tokens(source.text)).run()
    if not report.errors:  # whatever the pieces hide, the whole is still wrong
        _report(source, failure, "statement", 0, len(source.text), None, report)


@dataclass
class _Cutter:
    source: Source
    report: Diagnostics
    tokens: list[Token]
    at: int = 0
    piece: list[Token] = field(default_factory=list)
    """The tokens of the statement, header or setting that is being read."""
    keyword: Token | None = None
    """What the statement begins with."""
    block: Token | None = None
    """The brace that opened the statement's block."""
    closed: bool = False
    """The statement's block has ended: nothing may follow on its line."""
    inner: list[Token] = field(default_factory=list)
    """Brackets open inside the piece."""
    broken: bool = False
    """The piece's brackets are wrong, which has been said."""

    def run(self) -> None:
        while self.at < len(self.tokens) and len(self.report.found) < MOST_ERRORS:
            token = self.tokens[self.at]
            if token.type == "_SEPARATOR":
                self._line_end()
            elif self.inner and token.type in KEYWORDS and self._starts_line() and not self._is_setting():
                self._unclosed_inner()
                self.at -= 1
            elif self.block is not None and token.type in KEYWORDS and self._starts_line() and not self._is_setting():
                self._unclosed_block()
                self.at -= 1
            elif token.type in _PAIRS:
                self._open(token)
            elif token.type in CLOSING or token.type == "RIGHT_BRACE":
                self._close(token)
            elif token.type == "COMMA" and self.block is not None and not self.inner:
                self._finish()
            else:
                self._take(token)
            self.at += 1
        self._end()

    def _take(self, token: Token) -> None:
        if self.closed and not self.piece and token.type in KEYWORDS:
            help = "put each statement on its own line"
            message = f"expected a new line or `;` after `}}`, found {shown(token)}"
            self.report.error("Q101", message, self._span(token), help=help)
            self.keyword, self.closed = None, False
        if self.keyword is None:
            self.keyword = token
        self.piece.append(token)
        hidden = token.type == "STRAY" and not token.isprintable()
        if token.type == "UNTERMINATED" or hidden:
            # A string took the line's closing brackets with it; after a control character anything may follow.
            self.inner.clear()
            if not self.broken:
                self._parse("value", token.start_pos or 0, token.end_pos or 0, None)
            self.broken = True

    def _starts_line(self) -> bool:
        return self.at > 0 and self.tokens[self.at - 1].type == "_SEPARATOR"

    def _is_setting(self) -> bool:
        following = self.tokens[self.at + 1].type if self.at + 1 < len(self.tokens) else ""
        return following in ("EQUAL", "COMPARISON") or (following == "STRAY" and self.tokens[self.at + 1] == ":")

    def _line_end(self) -> None:
        continued = bool(self.piece) and self.piece[-1].type in OPERATORS
        # Only parentheses and brackets hold a line together, and a semicolon in them is a mistake of its own.
        if self.inner and self.inner[-1].type == "LEFT_BRACE" and not continued:
            self._unclosed_inner()
        if self.inner or continued:
            return
        self._finish()
        if self.block is None:
            self.keyword, self.closed = None, False

    def _open(self, token: Token) -> None:
        keyword = self.keyword.type if self.keyword is not None else ""
        brace = token.type == "LEFT_BRACE" and self.block is None and keyword not in BLOCKLESS
        if brace and self.inner and self.inner[-1].type in OPENING:
            # `rule linear[params > 3 {`: the brace is the block's, the bracket was forgotten.
            self._unclosed_inner()
            self.block = token
            return
        if brace and not self.inner:
            if self.keyword is None:
                self.keyword = token
            self._finish(header=token)
            self.block = token
            return
        self._take(token)
        self.inner.append(token)

    def _close(self, token: Token) -> None:
        if self.inner and _PAIRS[self.inner[-1].type] == token.type:
            self.inner.pop()
            self._take(token)
        elif token.type == "RIGHT_BRACE" and self.block is not None:
            if self.inner:
                self._unclosed_inner()
            self._finish()
            self.block, self.closed = None, True
        elif self.inner:
            expected = _SHOWN[_PAIRS[self.inner[-1].type]]
            if not self.broken:
                message = f"expected `{expected}`, found `{token}`"
                opened = self._span(self.inner[-1])
                note, related = f"`{self.inner[-1]}` was opened at {opened.location}", (Related(opened, "opened here"),)
                self.report.error("Q102", message, self._span(token), note=note, related=related)
            self.broken = True
            self.inner.pop()
        else:
            if not self.broken:
                self.report.error("Q110", f"`{token}` closes nothing", self._span(token), help="remove it")
            self.broken = True

    def _unclosed_inner(self) -> None:
        opening = self.inner[0]
        if not self.broken:
            closing = _SHOWN[_PAIRS[opening.type]]
            self.report.error("Q102", f"`{opening}` is never closed", self._span(opening), help=f"add `{closing}`")
        self.inner.clear()
        self.broken = True
        if self.block is None and self.at < len(self.tokens) and self.tokens[self.at].type != "LEFT_BRACE":
            self._finish()
            self.keyword = None

    def _unclosed_block(self) -> None:
        assert self.block is not None
        self._finish()
        ended = self.at >= len(self.tokens)
        help = "add `}` at the end" if ended else f"add `}}` before line {self._span(self.tokens[self.at]).line}"
        self.report.error("Q102", "`{` is never closed", self._span(self.block), help=help)
        self.block, self.keyword, self.closed = None, None, False

    def _end(self) -> None:
        if self.inner:
            self._unclosed_inner()
        if self.block is not None:
            self._unclosed_block()
        self._finish()

    def _finish(self, header: Token | None = None) -> None:
        """Judge the piece and forget it."""
        piece, broken = self.piece, self.broken
        self.piece, self.broken = [], False
        self.inner.clear()
        if broken or (not piece and header is None):
            return
        if self.block is not None and self.keyword is not None and self.keyword.type not in KEYWORDS:
            return  # what a statement may hold that nobody knows, nobody knows
        first = piece[0] if piece else header
        assert first is not None
        if self.closed and first.type == "FOREIGN":
            self._parse("value", first.start_pos or 0, first.end_pos or 0, None)
            return
        if self.closed:
            message = f"expected a new line or `;` after `}}`, found {shown(first)}"
            self.report.error("Q101", message, self._span(first))
            return
        assert first.start_pos is not None
        last = piece[-1].end_pos if header is None else header.start_pos
        assert last is not None
        start = "statement"
        if self.block is not None:
            bounds = self.keyword is not None and self.keyword.type in ("BUDGET", "VERIFY")
            start = "bound" if bounds else "setting"
        self._parse(start, first.start_pos, last, header)

    def _parse(self, start: str, first: int, last: int, header: Token | None) -> None:
        text = self.source.text[first:last] + ("{}" if header is not None else "")
        try:
            build_tree(self.source, start, text, first)
        except (UnexpectedToken, TooDeepError) as failure:
            _report(self.source, failure, start, first, last, self.keyword, self.report)

    def _span(self, token: Token) -> Span:
        assert token.start_pos is not None and token.end_pos is not None
        return Span(self.source, token.start_pos, token.end_pos)


def shown(token: Token) -> str:
    """A token as a message names it."""
    text = str(token)
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"


def _report(
    source: Source,
    failure: UnexpectedToken | TooDeepError,
    start: str,
    first: int,
    last: int,
    keyword: Token | None,
    report: Diagnostics,
) -> None:
    token = failure.token
    assert token.start_pos is not None and token.end_pos is not None
    if isinstance(failure, TooDeepError):
        span = Span(source, first + token.start_pos, first + token.end_pos)
        help = "name its parts with `let`"
        report.error("Q105", "nested too deeply: no more than 64 parentheses or `not`", span, help=help)
        return
    report_syntax_error(FailurePlace(source, start, first, last, keyword), failure, report)
