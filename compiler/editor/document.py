"""A policy that is being edited: its text, places in it as editors count them, and what is wrong with it.

A keystroke in a rule is answered from that rule and the statements that are no rules; all other rules are blanked out.
What rules say of one another (a `let` that none uses) is told by the check of the whole, when the typist rests.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from qcc.dsl.diagnostics.diagnostic import Diagnostic, Severity
from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.load import faults
from qcc.dsl.policy.policy import Policy
from qcc.dsl.policy.schema import Schema
from qcc.dsl.syntax.mistakes import STATEMENTS

_PIECE = re.compile(rf"(?:^|;)[ \t]*(?P<word>{'|'.join(STATEMENTS)})\b(?![ \t]*(?:[=:~<>!]))", re.MULTILINE)
"""Where a statement begins: its word first on a line or behind `;`, and no comparison or setting of that name."""
_RULE = "rule"


def path_of(uri: str) -> Path | None:
    """The file of a URI, if it names one."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.path else None


@dataclass
class Document:
    """An open text.

    Args:
        uri: what the editor calls it.
        text: with line ends as `\\n`, as the language has them.
        version: the editor's, told back with diagnostics.
    """

    uri: str
    text: str
    version: int | None = None
    found: list[Diagnostic] = field(default_factory=list)
    """What is wrong, as far as it was looked."""
    settled: bool = False
    """`found` is of the whole."""
    policy: Policy | None = None
    """Of the last text that was none the worse."""

    @property
    def source(self) -> Source:
        """The text under the name that diagnostics give it."""
        path = path_of(self.uri)
        return Source(str(path) if path is not None else self.uri, self.text, path)

    @property
    def folder(self) -> Path | None:
        """Where the files that it uses lie."""
        path = path_of(self.uri)
        return None if path is None else path.parent

    def change(self, changes: list[Mapping[str, Any]], version: int | None, schema: Schema) -> None:
        """Take edits as an editor sends them, and look at what they are about."""
        for one in changes:
            text = str(one["text"]).replace("\r\n", "\n")
            if (where := one.get("range")) is None:
                self.text, self.settled = text, False
                self.settle(schema)
                continue
            start, end = self.offset(where["start"]), self.offset(where["end"])
            end = max(start, end)
            self._edit(start, end, text, schema)
        self.version = version

    def settle(self, schema: Schema) -> None:
        """Look at the whole; where rules have errors of syntax, at all but those as well."""
        source = self.source
        policy, self.found = faults(source, schema, self.folder)
        self.policy = policy or self.policy
        self.settled = True
        broken = [
            _piece(self.text, one.span.start, one.span.start)
            for one in self.found
            if one.span and _is_syntax(one, source)
        ]
        rules = [piece for piece in broken if piece is not None and self._is_rule(piece)]
        if rules and len(rules) == len(broken):
            rest = self.text
            for start, end in rules:
                rest = rest[:start] + re.sub(r"[^\n]", " ", rest[start:end]) + rest[end:]
            _, beside = faults(Source(source.name, rest, source.path), schema, self.folder)
            # warnings are about what nothing uses, and the rules left out may
            self.found += [_moved(one, source, 0, 0) for one in beside if one.severity is Severity.ERROR]

    def _edit(self, start: int, end: int, text: str, schema: Schema) -> None:
        before, known = self.text, self.found
        self.text = before[:start] + text + before[end:]
        self.settled = False
        old, new = _piece(before, start, end), _piece(self.text, start, start + len(text))
        moved = len(self.text) - len(before)
        alike = new is not None and old == (new[0], new[1] - moved)
        if new is None or not alike or not self._is_rule(new) or not before.startswith(_RULE, new[0]):
            self.settle(schema)
            return
        source = self.source
        beside = Source(source.name, _blanked(self.text, new), source.path)
        _, here = faults(beside, schema, self.folder)
        kept = [_moved(one, source, start, moved) for one in known if _outside(one, source, (new[0], new[1] - moved))]
        self.found = [*kept, *(_moved(one, source, 0, 0) for one in here if _inside(one, new))]

    def _is_rule(self, piece: tuple[int, int]) -> bool:
        return self.text.startswith(_RULE, piece[0])

    def offset(self, position: Mapping[str, int]) -> int:
        """The offset of a line and a character, which count from 0 and in UTF-16."""
        starts = self.source.line_starts
        line = position["line"]
        if line >= len(starts):
            return len(self.text)
        start = starts[line]
        end = starts[line + 1] - 1 if line + 1 < len(starts) else len(self.text)
        units = position["character"]
        row = self.text[start:end]
        if row.isascii():
            return min(start + units, end)
        for at, char in enumerate(row):
            if units <= 0:
                return start + at
            units -= 2 if ord(char) > 0xFFFF else 1
        return end


def position(source: Source, offset: int) -> dict[str, int]:
    """A place as editors count: from 0, characters in UTF-16."""
    line = Span(source, offset, offset).line
    row = source.text[source.line_starts[line - 1] : offset]
    units = len(row) if row.isascii() else len(row.encode("utf-16-le", "surrogatepass")) // 2
    return {"line": line - 1, "character": units}


def span_range(span: Span) -> dict[str, Any]:
    """A span as editors have it."""
    return {"start": position(span.source, span.start), "end": position(span.source, span.end)}


def piece_start(text: str, offset: int) -> int:
    """Where the statement begins that a place belongs to."""
    return max((at for at in _starts(text) if at <= offset), default=0)


def _starts(text: str) -> list[int]:
    return [found.start("word") for found in _PIECE.finditer(text)]


def _piece(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The statement that a stretch lies in, up to the next one; None if it touches more than one."""
    starts = _starts(text)
    before = [at for at in starts if at <= start]
    after = [at for at in starts if at > start]
    if not before or (after and after[0] <= end):
        return None
    return before[-1], after[0] if after else len(text)


def _blanked(text: str, piece: tuple[int, int]) -> str:
    """The text without the other rules, at the same places; the rule behind stays, which a missing brace is told by."""
    starts = [*_starts(text), len(text)]
    parts = [text[: starts[0]]]
    for at, start in enumerate(starts[:-1]):
        stretch = text[start : starts[at + 1]]
        mine = start in piece
        parts.append(stretch if mine or not stretch.startswith(_RULE) else re.sub(r"[^\n]", " ", stretch))
    return "".join(parts)


def _is_syntax(one: Diagnostic, source: Source) -> bool:
    return (
        one.code.startswith("Q1")
        and one.severity is Severity.ERROR
        and one.span is not None
        and one.span.source == source
    )


def _inside(one: Diagnostic, piece: tuple[int, int]) -> bool:
    return one.span is not None and piece[0] <= one.span.start < piece[1]


def _outside(one: Diagnostic, source: Source, piece: tuple[int, int]) -> bool:
    return one.span is None or one.span.source.name != source.name or not piece[0] <= one.span.start < piece[1]


def _moved(one: Diagnostic, source: Source, start: int, by: int) -> Diagnostic:
    """A diagnostic of what stands before or behind an edit, where it stands now."""
    if one.span is None or one.span.source.name != source.name:
        return one

    def moved(span: Span) -> Span:
        shift = by if span.start >= start else 0
        return Span(source, span.start + shift, span.end + shift) if span.source.name == source.name else span

    related = tuple(replace(other, span=moved(other.span)) for other in one.related)
    return replace(one, span=moved(one.span), related=related)
