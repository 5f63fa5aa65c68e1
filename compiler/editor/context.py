"""What stands at a place of a text that may be unfinished: read off the tokens before it."""

import re
from dataclasses import dataclass, field

from lark import Token

from qcc.compiler.editor.document import piece_start
from qcc.dsl.syntax.build_tree import tokens

_CLOSES = {")": "(", "]": "[", "}": "{"}
_WORD = re.compile(r"[A-Za-z_$][\w$]*(?:-[\w]*)*\Z")
_BEHIND = re.compile(r"[\w-]*")


@dataclass
class _Bracket:
    """One that is open, with the word before it."""

    sign: str
    owner: str
    before: list[Token] = field(default_factory=list)
    """The tokens since it was opened, or since the last comma or line that ended something in it."""


@dataclass(frozen=True)
class CursorPlace:
    """Where the cursor is.

    Args:
        statement: the word that the statement begins with; empty where one may begin.
        setting: the property, bound or option of a block that is being given; empty where one may begin.
        owners: the words before the brackets that are open behind the setting, the innermost last.
        brackets: those brackets.
        before: the words of the piece before the cursor, since the last bracket, comma or `|`.
        word: the beginning of the word at the cursor.
        block: it is in the block of the statement.
    """

    statement: str
    setting: str
    owners: tuple[str, ...]
    brackets: str
    before: tuple[str, ...]
    word: str
    block: bool

    @property
    def option(self) -> str:
        """The option or fact whose value is being given, if one is."""
        return self.before[-2] if len(self.before) > 1 and self.before[-1] in ("=", *COMPARISONS) else ""


COMPARISONS = ("~", "!~", "==", "!=", "<", "<=", ">", ">=")


def place_at(text: str, offset: int) -> CursorPlace | None:
    """What stands at an offset; None within a comment, or where a text is quoted."""
    start = piece_start(text, offset)
    before = text[start:offset]
    line = before[before.rfind("\n") + 1 :]
    if _quoted(line) or "#" in re.sub(r'"[^"]*"', "", line):
        return None
    found = _WORD.search(before)
    word = found.group() if found is not None else ""
    listed = tokens(before[: len(before) - len(word)])
    return _read(listed, word)


def word_span(text: str, offset: int) -> tuple[int, int]:
    """The word that a place is in or behind."""
    line = text.rfind("\n", 0, offset) + 1
    found = _WORD.search(text[line:offset])
    behind = _BEHIND.match(text, offset)
    return offset - len(found.group() if found else ""), behind.end() if behind else offset


def _quoted(line: str) -> bool:
    return len(re.findall(r'(?<!\\)"', line)) % 2 == 1


def _read(listed: list[Token], word: str) -> CursorPlace:
    statement, setting = "", ""
    stack = [_Bracket("", "")]
    block = False
    for at, token in enumerate(listed):
        text = str(token)
        here = stack[-1]
        if token.type == "_SEPARATOR":
            if len(stack) == 1 or (len(stack) == 2 and block):
                setting, here.before = "", []
                statement = statement if block else ""
            continue
        if not statement:
            statement = text
        if text in "([{" and text:
            owner = str(listed[at - 1]) if at else ""
            block = block or (text == "{" and len(stack) == 1 and statement != "let" and not setting)
            stack.append(_Bracket(text, owner))
        elif text in _CLOSES:
            if len(stack) > 1:
                closed = stack.pop()
                stack[-1].before.append(token)
                if closed.sign == "{" and len(stack) == 1:
                    statement, setting, block, stack = "", "", False, [_Bracket("", "")]
        elif text in (",", "|"):
            here.before = []
            setting = "" if text == "," and block and len(stack) == 2 else setting
        else:
            here.before.append(token)
            if block and len(stack) == 2 and not setting:
                setting = text
    inner = stack[2:] if block else stack[1:]
    return CursorPlace(
        statement,
        setting,
        tuple(one.owner for one in inner),
        "".join(one.sign for one in inner),
        tuple(str(one) for one in stack[-1].before),
        word,
        block,
    )
