"""What commands print, and where: results on stdout, diagnostics on stderr; colour and fitting only at a terminal."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, TextIO, cast

from qcc.dsl.diagnostics import Diagnostic, render
from qcc.dsl.excerpt import cells, escape

Style = Literal["bold", "dim", "green", "red", "yellow", "cyan"]
_ANSI: dict[Style, str] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
GAP = "  "


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers stand to the right."""

    title: str
    right: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under titles; ``styles`` colour whole rows, at a terminal."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    styles: tuple[Style | None, ...] = ()


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


def report(diagnostics: Sequence[Diagnostic], format: str) -> None:
    """Print diagnostics: for people on stderr, GitHub's annotations on stdout; JSON goes into the result."""
    if not diagnostics or format == "json":
        return
    if format == "github":
        write(render(diagnostics, format="github"))
        return
    sys.stdout.flush()
    sys.stderr.write(render(diagnostics, color=colored(sys.stderr)))


def as_json(diagnostics: Sequence[Diagnostic]) -> list[Any]:
    """Diagnostics as a part of a JSON object."""
    return cast("list[Any]", json.loads(render(diagnostics, format="json")))


def write_table(table: Table, indent: str = "") -> None:
    """Print a table: fitted to the width of a terminal, else plain columns of any width."""
    if is_terminal(sys.stdout):
        _write_fitted(table)
    else:
        write(plain(table, indent))


def plain(table: Table, indent: str = "") -> str:
    """A table as stable text."""
    titles = tuple(column.title for column in table.columns)
    rows = [titles, *(tuple(escape(cell) for cell in row) for row in table.rows)]
    widths = [max(cells(row[at]) for row in rows) for at in range(len(titles))]
    return "".join(indent + _line(row, table.columns, widths) + "\n" for row in rows)


def pairs(rows: Iterable[tuple[str, str]], indent: str = "") -> str:
    """A column of words with what each means."""
    listed = [(escape(left), escape(right)) for left, right in rows]
    width = max((cells(left) for left, _ in listed), default=0)
    return "".join(f"{indent}{_padded(left, width)}{GAP}{right}".rstrip() + "\n" for left, right in listed)


def _line(row: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    shown = [_padded(cell, width, column.right) for cell, column, width in zip(row, columns, widths, strict=True)]
    return GAP.join(shown).rstrip()


def _padded(text: str, width: int, right: bool = False) -> str:
    gap = " " * (width - cells(text))
    return gap + text if right else text + gap


def _write_fitted(table: Table) -> None:
    import rich.console  # only a terminal needs it
    import rich.table
    from rich.text import Text

    style = "bold" if colored(sys.stdout) else ""
    drawn = rich.table.Table(box=None, pad_edge=False, padding=(0, 1), header_style=style)
    for column in table.columns:
        fold: Literal["fold", "ellipsis"] = "ellipsis" if column.right else "fold"
        drawn.add_column(column.title, justify="right" if column.right else "left", overflow=fold, no_wrap=column.right)
    for row, own in zip_longest(table.rows, table.styles):
        drawn.add_row(*(Text(escape(cell)) for cell in row), style=own)
    rich.console.Console(file=sys.stdout, no_color=not colored(sys.stdout), highlight=False).print(drawn)
