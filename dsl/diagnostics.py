"""What the compiler says to its user: a code, a message, the exact place, and what to do."""

import json
import shutil
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Literal

from qcc.dsl.excerpt import escape, excerpt
from qcc.dsl.other_tools import Place, told

PRINTED_AT_MOST = 50
LONGEST_MESSAGE = 400
LISTED_AT_MOST = 12

Format = Literal["text", "json", "github"]


class Severity(StrEnum):
    """Whether a diagnostic stops the compilation."""

    ERROR = "error"
    WARNING = "warning"


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
        self, code: str, message: str, span: Span | None = None, *, help: str | None = None, note: str | None = None
    ) -> None:
        """Note an error."""
        self.found.append(Diagnostic(code, message, span, help, note))

    def warning(
        self, code: str, message: str, span: Span | None = None, *, help: str | None = None, note: str | None = None
    ) -> None:
        """Note a warning."""
        self.found.append(Diagnostic(code, message, span, help, note, Severity.WARNING))

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


def render(
    diagnostics: Sequence[Diagnostic], *, format: Format = "text", color: bool = False, width: int | None = None
) -> str:
    """Diagnostics as text for people, JSON for tools, or GitHub's annotations.

    ``width`` is the terminal's, in columns; without it the terminal is asked.
    """
    if format == "json":
        return json.dumps([_json(one) for one in diagnostics], indent=2, ensure_ascii=False) + "\n"
    if format == "github":
        return "".join(_github(one) + "\n" for one in diagnostics)
    width = max(40, width or shutil.get_terminal_size((120, 24)).columns)
    parts = [_text(one, width, color) for one in diagnostics[:PRINTED_AT_MOST]]
    if len(diagnostics) > PRINTED_AT_MOST:
        parts.append(f"and {len(diagnostics) - PRINTED_AT_MOST} more\n")
    return "\n".join(parts)


_COLORS = {Severity.ERROR: "\x1b[1;31m", Severity.WARNING: "\x1b[1;33m"}


def _text(one: Diagnostic, width: int, color: bool) -> str:
    paint, frame, bold, plain = (_COLORS[one.severity], "\x1b[1;34m", "\x1b[1m", "\x1b[0m") if color else ("",) * 4
    lines = [f"{paint}{one.severity}[{one.code}]{plain}{bold}: {_cut(escape(one.message))}{plain}"]
    gutter = ""
    if one.span is not None:
        number = str(one.span.line)
        gutter = " " * len(number)
        source_line = one.span.source.line(one.span.line)
        start = one.span.column - 1
        end = min(start + one.span.end - one.span.start, len(source_line))
        shown, carets = excerpt(source_line, start, end, width - len(number) - 3)
        lines.append(f"{frame}{gutter}-->{plain} {escape(one.span.location)}")
        lines.append(f"{frame}{gutter} |{plain}")
        lines.append(f"{frame}{number} |{plain} {shown}".rstrip())
        lines.append(f"{frame}{gutter} |{plain} {paint}{carets}{plain}")
    for label, text in (("note", one.note), ("help", one.help)):
        if text:
            indent = "\n" + " " * len(f"{gutter} = {label}: ")
            body = indent.join(_cut(escape(line)) for line in text.split("\n"))
            lines.append(f"{frame}{gutter} ={plain} {bold}{label}{plain}: {body}")
    return "\n".join(lines) + "\n"


def _cut(text: str) -> str:
    # A message quotes what was written, which may be a megabyte.
    return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "..."


def _json(one: Diagnostic) -> dict[str, object]:
    entry: dict[str, object] = {
        "code": one.code,
        "severity": str(one.severity),
        "message": one.message,
        "help": one.help,
        "note": one.note,
    }
    if one.span is not None:
        last = Span(one.span.source, one.span.end, one.span.end)
        entry |= {"file": one.span.source.name, "line": one.span.line, "column": one.span.column}
        entry |= {"end_line": last.line, "end_column": last.column}
    return entry


def _github(one: Diagnostic) -> str:
    message = f"{one.code}: {one.message}"
    message += "".join(f"\n{label}: {text}" for label, text in (("note", one.note), ("help", one.help)) if text)
    message = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    if one.span is None:
        return f"::{one.severity}::{message}"
    name = one.span.source.name.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = name.replace(":", "%3A").replace(",", "%2C")
    line, column = one.span.line, one.span.column
    end = min(column + one.span.end - one.span.start, len(one.span.source.line(line)) + 1)
    return f"::{one.severity} file={name},line={line},col={column},endColumn={max(end, column + 1)}::{message}"


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that a mistyped word most likely meant, if any is near enough."""
    candidates = tuple(candidates)
    allowed = 1 if len(word) <= 4 else 2 if len(word) <= 8 else 3
    best: tuple[int, str] | None = None
    for candidate in candidates:
        distance = edit_distance(word.lower(), candidate.lower(), allowed)
        if distance < len(candidate) and distance <= allowed and (best is None or distance < best[0]):
            best = (distance, candidate)
    if best is not None:
        return best[1]
    # `grouping` for `group`, `ext` for `external_data`.
    begun = [
        one for one in candidates if min(len(one), len(word)) >= 3 and _one_begins_other(one.lower(), word.lower())
    ]
    return begun[0] if len(begun) == 1 else None


def _one_begins_other(left: str, right: str) -> bool:
    return left.startswith(right) or right.startswith(left)


def edit_distance(left: str, right: str, limit: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours between two words; above ``limit``, ``limit + 1``."""
    if abs(len(left) - len(right)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        older, before, row = before, row, [i]
        for j, b in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return row[-1]


def did_you_mean(word: str, candidates: Iterable[str], place: Place = "") -> str | None:
    """A help line: what another tool's word means here, the nearest candidate, or else what there is to choose from."""
    known = list(candidates)
    help = told(word, place)
    if help is not None:
        return help
    near = nearest(word, known)
    if near is not None:
        return f"did you mean `{near}`?"
    return f"expected {one_of(known)}" if known else None


def one_of(words: Sequence[str]) -> str:
    """Words as a message lists them: ``one of `a`, `b` or `c` ``."""
    if len(words) > LISTED_AT_MOST:
        return f"one of {', '.join(f'`{word}`' for word in words[:LISTED_AT_MOST])}, ..."
    quoted = [f"`{word}`" for word in words]
    if len(quoted) < 2:
        return "".join(quoted)
    return f"one of {', '.join(quoted[:-1])} or {quoted[-1]}" if len(quoted) > 2 else f"{quoted[0]} or {quoted[1]}"
