"""What commands print, and where: results on stdout, diagnostics on stderr; colour and fitting only at a terminal."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TextIO, cast

from qcc.compiler.console.fill import filled, laid_out, pieces
from qcc.compiler.console.fit_table import GAP, Table, fitted, plain
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.excerpt import cells, escape
from qcc.dsl.diagnostics.render import render

Style = Literal["bold", "dim", "green", "red", "yellow", "cyan"]
_ANSI: dict[Style, str] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
TOPIC = 10
"""Columns before the lines of a report."""


def is_terminal(stream: TextIO) -> bool:
    """Somebody watches, on something that can draw."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def colored(stream: TextIO) -> bool:
    """Colour is wanted on a stream; ``NO_COLOR`` turns it off."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def paint(text: str, style: Style) -> str:
    """A text for stdout in a colour, where colour is wanted."""
    return f"\x1b[{_ANSI[style]}m{text}\x1b[0m" if colored(sys.stdout) else text


def write(text: str) -> None:
    """Print a result."""
    sys.stdout.write(text)


def write_line(text: str = "") -> None:
    """Print a line of a result; what a terminal would obey must be escaped before."""
    sys.stdout.write(text + "\n")


def write_json(data: Mapping[str, Any]) -> None:
    """Print the one object of ``--format json``."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def note(text: str) -> None:
    """Tell something that is not the result."""
    sys.stderr.write(text + "\n")


def note_lines(*lines: str) -> None:
    """Tell it in lines that keep to a terminal's width."""
    for line in lines:
        note("\n".join(pieces(line, _room(sys.stderr))))


def report(diagnostics: Sequence[Diagnostic], format: str) -> None:
    """Print diagnostics: for people on stderr, GitHub's annotations and SARIF on stdout; JSON goes into the result."""
    if format == "sarif":
        write(render(diagnostics, format="sarif"))
        return
    if not diagnostics or format == "json":
        return
    if format == "github":
        write(render(diagnostics, format="github"))
        return
    sys.stdout.flush()
    sys.stderr.write(render(diagnostics, color=colored(sys.stderr), fill=is_terminal(sys.stderr)))


def as_json(diagnostics: Sequence[Diagnostic]) -> list[Any]:
    """Diagnostics as a part of a JSON object."""
    return cast("list[Any]", json.loads(render(diagnostics, format="json")))


def write_table(table: Table, indent: str = "", marks: Mapping[str, Style] = MappingProxyType({})) -> None:
    """Print a table: fitted to the width of a terminal, else plain columns of any width.

    At a terminal a line that holds one of the ``marks`` gets its colour.
    """
    if not is_terminal(sys.stdout):
        write(plain(table, indent))
        return
    titles, *lines = fitted(table, shutil.get_terminal_size().columns - len(indent))
    write_line(indent + paint(titles, "bold"))
    for line in lines:
        style = next((style for mark, style in marks.items() if mark in line), None)
        write_line(indent + (paint(line, style) if style else line))


def write_text(text: str, style: Style | None = None) -> None:
    """Print a line of a report, on several where a terminal is narrower."""
    for piece in pieces(escape(text), _room(sys.stdout)):
        write_line(paint(piece, style) if style else piece)


def kept_to(text: str) -> str:
    """A line of a result, on several where a terminal is narrower."""
    return "\n".join(pieces(text, _room(sys.stdout)))


def _room(stream: TextIO, before: int = 0) -> int | None:
    """Columns behind so many, at a terminal."""
    return shutil.get_terminal_size().columns - before if is_terminal(stream) else None


def write_topics(topics: Mapping[str, Sequence[tuple[str, Style | None]]]) -> None:
    """Print lines with their colours, each topic's first under its word; a terminal's width is kept to."""
    width = _room(sys.stdout, TOPIC)
    for topic, lines in topics.items():
        label = topic
        for text, style in lines:
            for piece in pieces(escape(text), width):
                write_line(paint(f"{label:<{TOPIC}}", "dim") + (paint(piece, style) if style else piece))
                label = ""


def pairs(rows: Iterable[tuple[str, str]], indent: str = "") -> str:
    """A column of words with what each means, which goes on below itself where a terminal is narrower."""
    listed = [(escape(left), escape(right)) for left, right in rows]
    width = max((cells(left) for left, _ in listed), default=0)
    before = len(indent) + width + len(GAP)
    room = _room(sys.stdout, before)
    lines = []
    for left, right in listed:
        first, *others = pieces(right, room)
        lines.append(f"{indent}{_padded(left, width)}{GAP}{first}".rstrip())
        lines += [" " * before + one.lstrip() for one in others]
    return "".join(f"{line}\n" for line in lines)


def paragraphs(text: str) -> str:
    """A text that fits the lines of a terminal; what it shows of policies stays as it is."""
    return filled(text, _room(sys.stdout))


def examples(text: str) -> str:
    """Commands with what each does, fitted to the width of a terminal."""
    return laid_out(text, _room(sys.stdout))


def _padded(text: str, width: int, right: bool = False) -> str:
    gap = " " * (width - cells(text))
    return gap + text if right else text + gap
