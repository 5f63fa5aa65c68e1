"""Texts whose lines fit a terminal: paragraphs are filled, what is laid out goes on below itself, examples stay."""

import re
from collections.abc import Iterator

from qcc.dsl.diagnostics.excerpt import cells, wrapped

FENCE = "```"
HANG = 4
GAP = re.compile(r"(?<=\S)  +(?=\S)")
APART = ("- ", "# ", "## ", "|")


def pieces(text: str, width: int | None) -> list[str]:
    """A line, on several where it is wider; those go on below what it begins with."""
    if width is None or cells(text) <= width:
        return [text]
    return wrapped(text, width, " " * (len(text) - len(text.lstrip()) + 2))


def filled(text: str, width: int | None) -> str:
    """A page in so many columns. What fits stays as it is, and so does what stands between fences."""
    if width is None:
        return text
    found, fenced = [], False
    for part in text.split("\n\n"):
        fences = part.count(FENCE)
        found.append(part if fenced or fences else "\n".join(_part(part, width)))
        fenced ^= fences % 2 == 1
    return "\n\n".join(found)


def _part(part: str, width: int) -> Iterator[str]:
    for item in _items(part.split("\n")):
        if all(cells(line) <= width for line in item):
            yield from item
            continue
        before, *under = (len(line) - len(line.lstrip()) for line in item)
        joined = " " * before + " ".join(line.strip() for line in item)
        yield from wrapped(joined, width, " " * (under[0] if under else before + _hang(joined.strip())))


def _hang(item: str) -> int:
    """Columns before what goes on of a line: those of its first word where a table's gap is behind it."""
    gap = GAP.search(item)
    return gap.end() if gap else 2 if item.startswith("- ") else HANG


def _items(lines: list[str]) -> Iterator[list[str]]:
    """Lines that are one sentence: a paragraph's, or a word's with what hangs under it."""
    item: list[str] = []
    for line in lines:
        if item and not _goes_on(item, line):
            yield item
            item = []
        item.append(line)
    yield item


def _goes_on(item: list[str], line: str) -> bool:
    if item[-1].endswith(":") or line.startswith(APART) or not line:
        return False
    before, first = (len(one) - len(one.lstrip()) for one in (line, item[0]))
    if first == 0 and not item[0].startswith("- "):
        return before == 0 and not item[0].startswith(APART)
    return before > first


def laid_out(text: str, width: int | None) -> str:
    """Commands with what each does, which stands below where a line has no room for both."""
    lines = text.split("\n")
    if width is None or all(cells(line) <= width for line in lines):
        return text
    return "\n".join(re.sub(r"(?<=\S)   *(?=\S)", "\n" + " " * 2 * HANG, line) for line in lines)
