"""What the compiler says to its user: a code, a message, the exact place, and what to do."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from qcc.dsl.diagnostics.source import Span

OutputFormat = Literal["text", "json", "github"]


class Severity(StrEnum):
    """Whether a diagnostic stops the compilation."""

    ERROR = "error"
    WARNING = "warning"


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

    @property
    def place(self) -> tuple[bool, str, int]:
        """Sorts diagnostics: those without a place first, then by source and offset."""
        return (False, "", 0) if self.span is None else (True, self.span.source.name, self.span.start)
