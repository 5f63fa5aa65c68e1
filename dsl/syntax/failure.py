"""A place where parsing failed."""

from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property

from lark import Token

from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.syntax.build_tree import tokens

CLOSERS = ("}", ",", ";")


NOTHING = Token("", "", 0, end_pos=0)


@dataclass(frozen=True)
class FailurePlace:
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

    place: FailurePlace
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
