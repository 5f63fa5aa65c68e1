"""Diagnostics as text, as JSON, for a build server, and for code scanning."""

import json
import shutil
from collections.abc import Sequence

from qcc.dsl.diagnostics.diagnostic import Diagnostic, OutputFormat, Severity
from qcc.dsl.diagnostics.excerpt import cells, escape, excerpt, wrapped
from qcc.dsl.diagnostics.sarif import sarif
from qcc.dsl.diagnostics.source import Span

PRINTED_AT_MOST = 50
LONGEST_MESSAGE = 400


def render(
    diagnostics: Sequence[Diagnostic],
    *,
    format: OutputFormat = "text",
    color: bool = False,
    width: int | None = None,
    fill: bool = False,
) -> str:
    """Diagnostics as text for people, JSON for tools, GitHub's annotations, or SARIF.

    ``width`` is the terminal's, in columns; without it the terminal is asked. With ``fill`` sentences keep to it,
    as quoted lines always do.
    """
    if format == "json":
        return json.dumps([_json(one) for one in diagnostics], indent=2, ensure_ascii=False) + "\n"
    if format == "sarif":
        return json.dumps(sarif(diagnostics), indent=2, ensure_ascii=False) + "\n"
    if format == "github":
        return "".join(_github(one) + "\n" for one in diagnostics)
    width = max(40, width or shutil.get_terminal_size((120, 24)).columns)
    parts = [_text(one, width, color, width if fill else None) for one in diagnostics[:PRINTED_AT_MOST]]
    if len(diagnostics) > PRINTED_AT_MOST:
        parts.append(f"and {len(diagnostics) - PRINTED_AT_MOST} more\n")
    return "\n".join(parts)


_COLORS = {Severity.ERROR: "\x1b[1;31m", Severity.WARNING: "\x1b[1;33m"}


def _text(one: Diagnostic, width: int, color: bool, room: int | None) -> str:
    paint, frame, bold, plain = (_COLORS[one.severity], "\x1b[1;34m", "\x1b[1m", "\x1b[0m") if color else ("",) * 4
    head = f"{one.severity}[{one.code}]"
    message = _filled(one.message, len(head) + 2, room)
    lines = [f"{paint}{head}{plain}{bold}: {message}{plain}"]
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
            before = len(f"{gutter} = {label}: ")
            body = ("\n" + " " * before).join(_filled(line, before, room) for line in text.split("\n"))
            lines.append(f"{frame}{gutter} ={plain} {bold}{label}{plain}: {body}")
    return "\n".join(lines) + "\n"


def _filled(text: str, before: int, room: int | None) -> str:
    """A sentence that begins behind so many columns, and goes on under itself where there is no room."""
    text = _cut(escape(text))
    if room is None or cells(text) <= room - before:
        return text
    return ("\n" + " " * before).join(wrapped(text, room - before))


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
        entry |= _place(one.span)
    if one.related:
        entry["related"] = [{"message": other.message, **_place(other.span)} for other in one.related]
    if one.fixes:
        entry["fixes"] = [
            {"title": fix.title, "edits": [{**_place(edit.span), "text": edit.text} for edit in fix.edits]}
            for fix in one.fixes
        ]
    return entry


def _place(span: Span) -> dict[str, object]:
    last = Span(span.source, span.end, span.end)
    place = {"file": span.source.name, "line": span.line, "column": span.column}
    return {**place, "end_line": last.line, "end_column": last.column}


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
