"""Diagnostics collected, and raised."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from qcc.dsl.diagnostics.diagnostic import Diagnostic, Related, Severity
from qcc.dsl.diagnostics.render import render
from qcc.dsl.diagnostics.source import Span


class QccError(Exception):
    """All the errors of one input, sorted by place."""

    diagnostics: tuple[Diagnostic, ...]

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(dict.fromkeys(diagnostics), key=lambda one: one.place))
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return render(self.diagnostics, width=120)


@dataclass
class Diagnostics:
    """Collects what is found, so that one run tells everything."""

    found: list[Diagnostic] = field(default_factory=list)

    def error(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        help: str | None = None,
        note: str | None = None,
        related: tuple[Related, ...] = (),
    ) -> None:
        """Note an error."""
        self.found.append(Diagnostic(code, message, span, help, note, Severity.ERROR, related))

    def warning(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        help: str | None = None,
        note: str | None = None,
        related: tuple[Related, ...] = (),
    ) -> None:
        """Note a warning."""
        self.found.append(Diagnostic(code, message, span, help, note, Severity.WARNING, related))

    def forget(self, codes: Collection[str]) -> None:
        """Leave out warnings of some codes, about what has been done anew."""
        self.found = [one for one in self.found if one.code not in codes or one.severity is Severity.ERROR]

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The errors so far, sorted by place."""
        return self._sorted(Severity.ERROR)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """The warnings so far, sorted by place."""
        return self._sorted(Severity.WARNING)

    def raise_if_errors(self) -> None:
        """Stop here if anything is wrong; the warnings go along.

        Raises:
            QccError: there is at least one error.
        """
        if self.errors:
            raise QccError(self.found)

    def _sorted(self, severity: Severity) -> tuple[Diagnostic, ...]:
        kept = dict.fromkeys(one for one in self.found if one.severity is severity)
        return tuple(sorted(kept, key=lambda one: one.place))
