"""Tables that fit a terminal: names are cut from the left, what matters least is left out, nothing wraps in a cell."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from qcc.dsl.diagnostics.excerpt import cells, escape

GAP = "  "
ELLIPSIS = "..."
LEAST_NAME = 24
"""A name is not cut below this before columns are left out, as its end tells it from others."""


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers stand to the right."""

    title: str
    right: bool = False
    cut: bool = False
    """Cells may be cut from the left where room is short; others never are."""
    spare: int = 0
    """Left out where room is short, the largest first; 0 stays."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under titles."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


def plain(table: Table, indent: str = "") -> str:
    """A table as stable text."""
    return "".join(f"{indent}{line}\n" for line in _lines(_escaped(table)))


def fitted(table: Table, width: int) -> list[str]:
    """The lines of a table, the titles first, in so many columns of a terminal."""
    table = _escaped(table)
    while _width(table, LEAST_NAME) > width and any(column.spare for column in table.columns):
        table = _without(table, max(range(len(table.columns)), key=lambda at: table.columns[at].spare))
    names = [at for at, column in enumerate(table.columns) if column.cut]
    if names:
        room = max(LEAST_NAME, (width - _width(table, 0)) // len(names))
        rows = [
            tuple(cut_left(cell, room) if at in names else cell for at, cell in enumerate(row)) for row in table.rows
        ]
        table = Table(table.columns, tuple(rows))
    return [piece for line in _lines(table) for piece in _wrapped(line, width)]


def _escaped(table: Table) -> Table:
    return Table(table.columns, tuple(tuple(escape(cell) for cell in row) for row in table.rows))


def _without(table: Table, gone: int) -> Table:
    columns = tuple(column for at, column in enumerate(table.columns) if at != gone)
    return Table(columns, tuple(tuple(cell for at, cell in enumerate(row) if at != gone) for row in table.rows))


def _widths(table: Table) -> list[int]:
    rows = [tuple(column.title for column in table.columns), *table.rows]
    return [max(cells(row[at]) for row in rows) for at in range(len(table.columns))]


def _width(table: Table, name: int) -> int:
    """How wide a table is if its names are cut to so many columns."""
    widths = [
        min(width, name) if column.cut else width for column, width in zip(table.columns, _widths(table), strict=True)
    ]
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _lines(table: Table) -> list[str]:
    widths = _widths(table)
    rows = [tuple(column.title for column in table.columns), *table.rows]
    return [_line(row, table.columns, widths) for row in rows]


def _line(row: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    shown = [_padded(cell, width, column.right) for cell, column, width in zip(row, columns, widths, strict=True)]
    return GAP.join(shown).rstrip()


def _padded(text: str, width: int, right: bool = False) -> str:
    gap = " " * (width - cells(text))
    return gap + text if right else text + gap


def _wrapped(line: str, width: int) -> list[str]:
    """A line that is still too long goes on below, indented: nothing is lost."""
    if cells(line) <= width:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent="    ", drop_whitespace=True, break_on_hyphens=False)


def cut_left(text: str, width: int) -> str:
    """A text in at most so many columns of a terminal; its end is kept."""
    if cells(text) <= width:
        return text
    end = text
    while end and cells(end) > width - len(ELLIPSIS):
        end = end[1:]
    return ELLIPSIS + end
