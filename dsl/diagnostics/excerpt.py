"""One line of a source as a terminal shows it: tabs, wide characters, long lines."""

import textwrap
import unicodedata

TAB = 4
ELLIPSIS = "..."
LEAST = 30
"""Columns that a text gets in the narrowest terminal: a word a line says nothing."""


def escape(text: str) -> str:
    """Spell out what a terminal would obey or hide: control, format and surrogate characters."""
    return text if text.isprintable() else "".join(_escape(char) for char in text)


def _escape(char: str) -> str:
    # Space separators other than " " aren't printable for Python, yet they show.
    if char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """A text in lines of so many columns, of which those behind the first are indented; no word is broken."""
    room = max(width, LEAST)
    return textwrap.wrap(text, room, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def cells(text: str) -> int:
    """How many terminal columns a text takes."""
    return len(text) if text.isascii() else sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def excerpt(line: str, start: int, end: int, width: int) -> tuple[str, str]:
    """Show a line and the carets under its characters ``start`` to ``end``.

    A line wider than ``width`` is cut to a window round the first caret.
    """
    end = max(end, start + 1)
    first = max(0, start - width)  # a line of megabytes: only the neighbourhood is looked at
    shown = _display(line[first : start + width])
    widths = [cells(piece) for piece in shown]
    caret = start - first
    left, right = 0, len(shown)
    if first > 0 or start + width < len(line) or sum(widths) > width:
        left, right = _window(widths, caret, width - 2 * len(ELLIPSIS))
    before = ELLIPSIS if first + left > 0 else ""
    after = ELLIPSIS if first + right < len(line) else ""
    text = before + "".join(shown[left:right]) + after
    pad = len(before) + sum(widths[left:caret])
    marked = sum(widths[caret : min(end - first, right)])
    return text.rstrip(), " " * pad + "^" * max(1, marked)


def _display(line: str) -> list[str]:
    """Each character as it's printed; a tab becomes the blanks to its next stop."""
    shown: list[str] = []
    column = 0
    for char in line:
        piece = " " * (TAB - column % TAB) if char == "\t" else _escape(char)
        column += cells(piece)
        shown.append(piece)
    return shown


def _window(widths: list[int], caret: int, room: int) -> tuple[int, int]:
    """The range of characters to show: a third of the room before the caret, the rest after it."""
    left, used = min(caret, len(widths)), 0
    while left > 0 and used + widths[left - 1] <= room // 3:
        left -= 1
        used += widths[left]
    right = min(caret, len(widths))
    while right < len(widths) and used + widths[right] <= room:
        used += widths[right]
        right += 1
    while left > 0 and used + widths[left - 1] <= room:
        left -= 1
        used += widths[left]
    return left, right
