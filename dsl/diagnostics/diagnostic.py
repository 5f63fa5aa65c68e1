"""What the compiler says to its user: a code, a message, the exact place, and what to do."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from qcc.dsl.diagnostics.source import Span

OutputFormat = Literal["text", "json", "github", "sarif"]


class Severity(StrEnum):
    """Whether a diagnostic stops the compilation."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Related:
    """Another place that a diagnostic is about, and what it has to do with it."""

    span: Span
    message: str


@dataclass(frozen=True)
class TextEdit:
    """A text in the place of a span."""

    span: Span
    text: str


@dataclass(frozen=True)
class Fix:
    """Edits that end a diagnostic, and what they do, in the words of its help."""

    title: str
    edits: tuple[TextEdit, ...]


@dataclass(frozen=True)
class Diagnostic:
    """One thing to tell the user, in their words: lower case, no full stop."""

    code: str
    message: str
    span: Span | None = None
    help: str | None = None
    """The nearest legal spelling, or what to do."""
    note: str | None = None
    """Why it's so."""
    severity: Severity = Severity.ERROR
    related: tuple[Related, ...] = ()
    """Other places that it's about, such as the first of two."""
    fixes: tuple[Fix, ...] = ()
    """What ends it: tried on the text, not guessed (see `qcc.dsl.fixes`)."""

    @property
    def place(self) -> tuple[bool, str, int]:
        """Sorts diagnostics: those without a place first, then by source and offset."""
        return (False, "", 0) if self.span is None else (True, self.span.source.name, self.span.start)
