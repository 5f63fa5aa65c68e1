"""Where in a source text something stands."""

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A text of the language and the name it's shown under."""

    name: str
    text: str = field(repr=False)
    path: Path | None = None
    """The file it was read from; what it uses is looked for beside it."""
    preset: bool = False
    """Whether the compiler ships it."""

    @cached_property
    def line_starts(self) -> list[int]:
        """Offset of each line's first character."""
        starts = [0]
        at = self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return starts

    def line(self, number: int) -> str:
        """A line by its 1-based number, without its end."""
        start = self.line_starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start : len(self.text) if end < 0 else end].removesuffix("\r")


@dataclass(frozen=True)
class Span:
    """A range of characters of a source: ``text[start:end]``."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """1-based line of the first character."""
        return bisect_right(self.source.line_starts, self.start)

    @property
    def column(self) -> int:
        """1-based column, in characters, of the first character."""
        return self.start - self.source.line_starts[self.line - 1] + 1

    @property
    def location(self) -> str:
        """``file:line:column``."""
        return f"{self.source.name}:{self.line}:{self.column}"

    @property
    def text(self) -> str:
        """The characters themselves."""
        return self.source.text[self.start : self.end]

    def to(self, other: "Span") -> "Span":
        """From here to the end of another span of the same source."""
        return Span(self.source, self.start, other.end)
