"""What ends a diagnostic: edits read off its help, each tried on the text.

A help line is for people; `did you mean`, `write`, `add` and `remove` in it say an edit, though not always how far it
reaches. So every reach that loses nothing is tried, and only what ends the diagnostic and begins no other is offered.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from qcc.dsl.diagnostics.diagnostic import Diagnostic, Fix, TextEdit
from qcc.dsl.diagnostics.source import Source, Span

Judge = Callable[[str], Sequence[Diagnostic]]
"""Tells what is wrong with a text."""

MOST_FIXED = 20
"""Diagnostics of one text that fixes are looked for: each takes some checks of the whole text."""

_SAID = re.compile(r"(?:did you mean|write|start it with) `(?P<text>[^`]+)`(?! and `)")
_ADDED = re.compile(r"add `(?P<text>[^`]+)`(?: before line (?P<line>\d+))?")
_VAGUE = re.compile(r"\.\.\.|<\w+>")
_EDGES = "{};,\n#"
_SYNTAX = "Q1"


def with_fixes(diagnostics: Sequence[Diagnostic], source: Source, judge: Judge) -> list[Diagnostic]:
    """Diagnostics with what ends them, those of ``source``; the others as they are."""
    found, left = [], MOST_FIXED
    for one in diagnostics:
        ours = one.span is not None and one.span.source == source and one.help is not None
        found.append(replace(one, fixes=fixes(one, diagnostics, judge)) if ours and left > 0 else one)
        left -= ours
    return found


def fixes(one: Diagnostic, known: Sequence[Diagnostic], judge: Judge) -> tuple[Fix, ...]:
    """The first edit that ends a diagnostic and begins no other, if its help tells one.

    Args:
        one: the diagnostic, whose span is of the text that ``judge`` is about.
        known: all that is wrong with the text.
        judge: tells what is wrong with another text.
    """
    for edit in _edits(one):
        if _ends(one, known, judge(applied(edit.span.source.text, [edit]))):
            return (Fix(one.help or "", (edit,)),)
    return ()


def applied(text: str, edits: Sequence[TextEdit]) -> str:
    """A text after edits, which do not overlap."""
    for edit in sorted(edits, key=lambda edit: edit.span.start, reverse=True):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


def _ends(one: Diagnostic, known: Sequence[Diagnostic], now: Sequence[Diagnostic]) -> bool:
    """Whether a diagnostic is gone and no other has come; behind errors of syntax others may have been hidden."""
    hidden = one.code.startswith(_SYNTAX)
    before = Counter((other.code, other.message) for other in known)
    after = Counter((other.code, other.message) for other in now if not hidden or other.code.startswith(_SYNTAX))
    return after[one.code, one.message] < before[one.code, one.message] and not after - before


def _edits(one: Diagnostic) -> Iterator[TextEdit]:
    if one.span is None or one.help is None:
        return
    if said := _SAID.search(one.help):
        yield from _replaced(one.span, said["text"])
        yield from _within(one, said["text"])
    if added := _ADDED.search(one.help):
        yield from _added(one.span, added["text"], added["line"])
    if "candidates with `|`" in one.help:
        yield TextEdit(Span(one.span.source, one.span.start, one.span.start), "| ")
    if "on its own line" in one.help:
        yield TextEdit(Span(one.span.source, one.span.start, one.span.start), "\n")
    if re.search(r"\bremove (it|one|this line)|\bkeep one\b", one.help):
        yield from _removed(one.span)


def _replaced(span: Span, text: str) -> Iterator[TextEdit]:
    """A text in the place of the span, or, the most first, of more round it that stands in the text as well."""
    if _VAGUE.search(text):
        return
    if span.source.text[: span.end].strip() and text.startswith("qpolicy"):
        yield TextEdit(Span(span.source, 0, 0), text + "\n")
    if span.text.startswith('"') and not text.startswith('"'):
        text = f'"{text}"'
    for start in reversed([*_starts(span)]):
        for end in reversed([*_ends_of(span)]):
            lost = span.source.text[start : span.start], span.source.text[span.end : end]
            if text.startswith(lost[0].strip()) and text.endswith(lost[1].strip()):
                yield TextEdit(Span(span.source, start, end), text)


def _within(one: Diagnostic, text: str) -> Iterator[TextEdit]:
    """A text in the place of what the message blames in the span, such as the unit of a number."""
    blamed = re.findall(r"`([^`]+)`", one.message)
    if one.span is None or not blamed or one.span.text.count(blamed[-1]) != 1:
        return
    start = one.span.start + one.span.text.index(blamed[-1])
    yield TextEdit(Span(one.span.source, start, start + len(blamed[-1])), text)


def _starts(span: Span) -> Iterator[int]:
    """Where an edit may begin: at the span, at words before it, at the most after what ends a setting."""
    text, at = span.source.text, span.start
    yield at
    while at > 0 and text[at - 1] not in _EDGES:
        at -= 1
        if not text[at].isspace() and (at == 0 or text[at - 1].isspace() or text[at - 1] in _EDGES):
            yield at


def _ends_of(span: Span) -> Iterator[int]:
    text, at = span.source.text, span.end
    yield at
    while at < len(text) and text[at] not in _EDGES:
        at += 1
        if not text[at - 1].isspace() and (at == len(text) or text[at].isspace() or text[at] in _EDGES):
            yield at


def _added(span: Span, text: str, line: str | None) -> Iterator[TextEdit]:
    """What is missing, before a line, or behind the span as near as it does."""
    source = span.source
    if line is not None:
        place = source.line_starts[int(line) - 1]
        yield TextEdit(Span(source, place, place), text + "\n")
        return
    for found in re.finditer(r"(?=[ \t]*[{};#\n])|\Z", source.text[span.end :]):
        place = span.end + found.start()
        ends = place == len(source.text.rstrip())
        yield TextEdit(Span(source, place, place), f"\n{text}" if ends and text == "}" else text)
        if "\n" in source.text[span.end : place]:
            break
    end = len(source.text.rstrip())
    yield TextEdit(Span(source, end, end), f"\n{text}")


def _removed(span: Span) -> Iterator[TextEdit]:
    """Nothing in the place of the span, and of what would be left over round it."""
    text = span.source.text
    first = text.rfind("\n", 0, span.start) + 1
    last = text.find("\n", span.end)
    last = len(text) if last < 0 else last + 1
    if not text[first : span.start].strip() and not text[span.end : last].split("#")[0].strip():
        yield TextEdit(Span(span.source, first, last), "")
    for before, after in ((r"", r"[ \t]*[,;|][ \t]*"), (r"[ \t]*[,;|][ \t]*", r""), (r"", r"[ \t]*")):
        front = re.search(rf"(?:{before})\Z", text[first : span.start])
        behind = re.match(after, text[span.end : last])
        if front is not None and behind is not None:
            yield TextEdit(Span(span.source, first + front.start(), span.end + behind.end()), "")
