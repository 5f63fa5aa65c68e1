"""One layout for all policies: `qcc fmt`."""

from dataclasses import dataclass, field

from lark import Token

from qcc.dsl.diagnostics.source import Source
from qcc.dsl.syntax.build_tree import OPERATORS, tokens
from qcc.dsl.syntax.parse import parse
from qcc.dsl.syntax.recover import BLOCKLESS

INDENT = 4
LONGEST_LINE = 120


def format_source(text: str, name: str = "<policy>") -> str:
    """Lay a policy out: one statement or setting a line, `=` aligned in a block, comments where they were.

    Line breaks inside a value or selector stay, as do single blank lines.

    Raises:
        QccError: the text has syntax errors.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    parse(Source(name, text))
    return _Printer(_Reader(text).read()).print()


@dataclass
class _Line:
    """One line of a run: its tokens, and the comment after them."""

    tokens: list[Token] = field(default_factory=list)
    comment: str = ""


@dataclass
class _Run:
    """A statement up to its block, a setting, a bound, or a comment of its own: lines that belong together."""

    lines: list[_Line] = field(default_factory=lambda: [_Line()])
    block: "_Block | None" = None
    blank_before: bool = False

    @property
    def empty(self) -> bool:
        return not any(line.tokens or line.comment for line in self.lines)


@dataclass
class _Block:
    runs: list[_Run] = field(default_factory=list)
    comment: str = ""
    """After the opening brace."""
    closing_comment: str = ""
    multiline: bool = False


class _Reader:
    """Groups tokens, line ends and comments into runs."""

    def __init__(self, text: str) -> None:
        self.runs: list[_Run] = []
        self.block: _Block | None = None
        self.run = _Run()
        self.keyword = ""
        self.depth = 0
        self.after_block: _Block | None = None
        """The block that ended on this line, which takes the line's comment."""
        self.fresh = False
        """A run ended on this line, and takes its comment."""
        self.text = text

    def read(self) -> list[_Run]:
        for token in tokens(self.text, trivia=True):
            if token.type in ("BLANK", "COMMENT", "CONTINUED", "_SEPARATOR"):
                self._trivia(token)
            else:
                self._token(token)
        self._end_run()
        return self.runs

    def _siblings(self) -> list[_Run]:
        return self.runs if self.block is None else self.block.runs

    def _trivia(self, token: Token) -> None:
        if token.type == "COMMENT":
            self._comment(str(token).rstrip())
            return
        if token.type == "BLANK":
            return
        ends = token.type == "_SEPARATOR" and not self.depth and not self._goes_on()
        at, text = 0, str(token)
        newlines = 0
        while at < len(text):
            if text[at] == "#":
                end = text.find("\n", at)
                end = len(text) if end < 0 else end
                self._comment(text[at:end].rstrip())
                at = end
                newlines = 0
                continue
            if text[at] == "\n":
                newlines += 1
                self._newline(ends, blank=newlines > 1)
            elif text[at] == ";" and ends:
                self._end_run(fresh=True)
            at += 1

    def _goes_on(self) -> bool:
        last = self.run.lines[-1].tokens or (self.run.lines[-2].tokens if len(self.run.lines) > 1 else [])
        return bool(last) and last[-1].type in OPERATORS

    def _newline(self, ends: bool, *, blank: bool) -> None:
        if self.block is not None:
            self.block.multiline = True
        if ends or self.run.empty:
            self._end_run()
            self.after_block, self.fresh = None, False
            self.run.blank_before = self.run.blank_before or blank
        elif self.run.lines[-1].tokens or self.run.lines[-1].comment:
            self.run.lines.append(_Line())

    def _comment(self, text: str) -> None:
        if not self.run.empty and self.run.lines[-1].tokens:
            self.run.lines[-1].comment = text
        elif not self.run.empty:  # on a line of its own inside a value
            self.run.lines[-1].comment = text
            self.run.lines.append(_Line())
        elif self.after_block is not None:
            self.after_block.closing_comment = text
        elif self.fresh and self._siblings():
            self._siblings()[-1].lines[-1].comment = text
        elif self.block is not None and not self.block.runs and not self.block.multiline:
            self.block.comment = text
        else:
            self.run.lines[-1].comment = text
            self._end_run()

    def _end_run(self, *, fresh: bool = False) -> None:
        if self.run.empty:
            return
        while len(self.run.lines) > 1 and not (self.run.lines[-1].tokens or self.run.lines[-1].comment):
            self.run.lines.pop()
        self._siblings().append(self.run)
        self.run = _Run()
        self.fresh = fresh
        if self.block is None:
            self.keyword = ""

    def _token(self, token: Token) -> None:
        if not self.keyword:
            self.keyword = token.type
        if token.type == "LEFT_BRACE" and not self.depth and self.block is None and self.keyword not in BLOCKLESS:
            self._open_block()
        elif token.type == "RIGHT_BRACE" and not self.depth:
            self._close_block()
        elif token.type == "COMMA" and not self.depth and self.block is not None:
            self._end_run(fresh=True)
        else:
            opens = token.type in ("LEFT_PARENTHESIS", "LEFT_BRACKET", "LEFT_BRACE")
            closes = token.type in ("RIGHT_PARENTHESIS", "RIGHT_BRACKET", "RIGHT_BRACE")
            self.depth += opens - closes
            self.run.lines[-1].tokens.append(token)

    def _open_block(self) -> None:
        block = _Block()
        self.run.block = block
        if not self.run.lines[-1].tokens:
            self.run.lines.pop()
        self._end_run()
        self.block = block

    def _close_block(self) -> None:
        self._end_run()
        self.after_block, self.block, self.keyword = self.block, None, ""


class _Printer:
    def __init__(self, runs: list[_Run]) -> None:
        self.runs = runs
        self.lines: list[str] = []

    def print(self) -> str:
        for run in self.runs:
            if run.blank_before and self.lines:
                self.lines.append("")
            self._run(run, 0, 0)
            if run.block is not None:
                self._block(run, run.block)
        return "".join(line + "\n" for line in self.lines)

    def _run(self, run: _Run, indent: int, width: int) -> None:
        for at, line in enumerate(run.lines):
            text = _joined(line.tokens, width if at == 0 else 0)
            if line.comment:
                text = f"{text}  {line.comment}" if text else line.comment
            self.lines.append(" " * (indent + INDENT * (at > 0)) + text)

    def _block(self, run: _Run, block: _Block) -> None:
        # A comment after the head keeps the brace off its line.
        opening = "{" if run.lines[-1].comment else f"{self.lines.pop()} {{"
        closing = "}" + (f"  {block.closing_comment}" if block.closing_comment else "")
        if not block.comment and (not block.multiline or not block.runs):
            inside = ", ".join(_joined(one.lines[0].tokens, 0) for one in block.runs)
            whole = f"{opening} {inside} {closing}" if inside else f"{opening} {closing}"
            if len(whole) <= LONGEST_LINE:
                self.lines.append(whole)
                return
        self.lines.append(opening + (f"  {block.comment}" if block.comment else ""))
        width = max((len(one.lines[0].tokens[0]) for one in block.runs if _is_setting(one)), default=0)
        for at, one in enumerate(block.runs):
            if one.blank_before and at:
                self.lines.append("")
            self._run(one, INDENT, width if _is_setting(one) else 0)
        self.lines.append(closing)


def _is_setting(run: _Run) -> bool:
    first = run.lines[0].tokens
    return len(first) > 1 and first[1].type == "EQUAL"


def _joined(line: list[Token], width: int) -> str:
    """The tokens of a line with one blank where one belongs; the first padded to ``width``."""
    out = ""
    grid = False
    for at, token in enumerate(line):
        text = "".join(str(token).split()) if token.type == "NUMBER" and str(token).endswith("%") else str(token)
        if token.type == "NUMBER":
            text = " ".join(text.split())
        if at and _gap(line[at - 1], token, grid):
            out += " "
        grid = token.type == "LEFT_BRACE" or (grid and token.type != "RIGHT_BRACE")
        out += text.ljust(width) if at == 0 else text
    return out.rstrip()


def _gap(before: Token, token: Token, grid: bool) -> bool:
    if token.type in ("COMMA", "RIGHT_PARENTHESIS", "RIGHT_BRACKET", "RIGHT_BRACE", "LEFT_BRACKET"):
        return False
    if before.type in ("LEFT_PARENTHESIS", "LEFT_BRACKET", "LEFT_BRACE"):
        return False
    if grid:
        return before.type != "COMMA"
    if token.type == "LEFT_PARENTHESIS":
        return before.type != "NAME"
    if token.type == "LEFT_BRACE":  # `int{2,3}` or `group {32,64}`, as written
        return before.end_pos != token.start_pos
    return True
