"""Regular expressions matched in linear time, so that no policy can hang the compiler.

Python's own matcher goes back and tries again: `a*a*a*b` takes the cube of a name's length. Here all ways through the
expression are followed at once, character by character, and what is learnt of one name serves for the next. What
cannot be matched so (looking around, references to groups) is refused. Each single character of an expression is still
compared by Python's matcher, so that classes and escapes mean what they mean there.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

LONGEST = 200
LARGEST = 500
"""How many steps an expression may have once its counted repeats are written out."""
REMEMBERED = 4096

_REPEAT = re.compile(r"[*+?]|\{(?P<low>\d*)(?P<comma>,?)(?P<high>\d*)\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x..|u.{4}|U.{8}|N\{[^}]*\}|0[0-7]{0,2}|[1-3][0-7]{2}|.)", re.DOTALL)
_FLAGS = re.compile(r"\(\?(?P<letters>[is]+)\)")
_GROUP = re.compile(r"\((?:\?:|\?P<\w+>|(?!\?))")
_PLACES = {"^": "start", "\\A": "start", "$": "end", "\\Z": "end", "\\b": "edge", "\\B": "inside"}


class RegexError(ValueError):
    """An expression is wrong, or not one that can be matched in linear time."""


@dataclass(frozen=True)
class Regex:
    """A regular expression, found anywhere in a name."""

    pattern: str

    def __post_init__(self) -> None:
        _program(self.pattern)  # says at once what is wrong

    def found_in(self, text: str) -> bool:
        """Whether any part of a text fits."""
        return _program(self.pattern).found_in(text)


@dataclass(frozen=True)
class _Step:
    """One step: a character that must fit, a place that must hold, or only ways on."""

    character: re.Pattern[str] | None = None
    place: str = ""
    ways: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Around:
    """What a place between two characters is judged by."""

    before: str
    after: str
    last: bool
    """Whether nothing follows ``after``."""

    def holds(self, place: str) -> bool:
        if place == "start":
            return not self.before
        if place == "end":
            return not self.after or (self.after == "\n" and self.last)
        edge = _is_word(self.before) != _is_word(self.after)
        return edge == (place == "edge")


def _is_word(char: str) -> bool:
    return bool(char) and (char.isalnum() or char == "_")


@dataclass
class _Program:
    """The steps of an expression; the last one is reached when it fits."""

    steps: list[_Step]
    known: dict[tuple[frozenset[int], _Around], frozenset[int] | None] = field(default_factory=dict)
    """From what was reached before a character, and what is around, to what is reached after it; None if it fits."""

    def found_in(self, text: str) -> bool:
        reached: frozenset[int] | None = frozenset((0,))
        for at in range(len(text) + 1):
            assert reached is not None
            around = _Around(text[at - 1 : at] if at else "", text[at : at + 1], at + 1 >= len(text))
            reached = self._next(reached, around)
            if reached is None:
                return True
        return False

    def _next(self, reached: frozenset[int], around: _Around) -> frozenset[int] | None:
        key = (reached, around)
        if key not in self.known:
            if len(self.known) >= REMEMBERED:
                self.known.clear()
            self.known[key] = self._compute(reached, around)
        return self.known[key]

    def _compute(self, reached: frozenset[int], around: _Around) -> frozenset[int] | None:
        seen, left, after = set(reached), list(reached), {0}
        while left:
            at = left.pop()
            if at == len(self.steps):
                return None
            step = self.steps[at]
            if step.character is not None:
                if around.after and step.character.match(around.after):
                    after.add(at + 1)
                continue
            if step.place and not around.holds(step.place):
                continue
            new = set(step.ways) - seen
            seen |= new
            left += new
        return frozenset(after)


@lru_cache(maxsize=256)
def _program(pattern: str) -> _Program:
    if len(pattern) > LONGEST:
        raise RegexError(f"longer than {LONGEST} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise RegexError(str(error)) from None
    return _Program(_Reader(pattern).read())


RegexPart = Callable[[], object]
"""Writes the steps of a part of an expression, as often as it is asked to."""


class _Reader:
    """Reads an expression that is known to be well formed, and writes its steps."""

    def __init__(self, pattern: str) -> None:
        flags = _FLAGS.match(pattern)
        self.flags = re.IGNORECASE if flags and "i" in flags["letters"] else re.NOFLAG
        self.flags |= re.DOTALL if flags and "s" in flags["letters"] else re.NOFLAG
        self.text = pattern
        self.at = flags.end() if flags else 0
        self.steps: list[_Step] = []

    def read(self) -> list[_Step]:
        """The steps."""
        self._choice()()
        return self.steps

    def _choice(self) -> RegexPart:
        parts = [self._sequence()]
        while self.text[self.at : self.at + 1] == "|":
            self.at += 1
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else lambda: self._write_choice(parts)

    def _sequence(self) -> RegexPart:
        parts = list(self._repeated())
        return lambda: [part() for part in parts]

    def _repeated(self) -> Iterator[RegexPart]:
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            part = self._one()
            while (found := _REPEAT.match(self.text, self.at)) and found.group() != "{}":
                self.at = found.end()
                self._lazy()
                part = self._counted(part, found)
            yield part

    def _lazy(self) -> None:
        sign = self.text[self.at : self.at + 1]
        if sign == "+":
            raise RegexError("`+` behind a repeat means not to go back, which is never done here: remove it")
        if sign == "?":  # only says which of several finds is taken
            self.at += 1

    def _counted(self, part: RegexPart, found: re.Match[str]) -> RegexPart:
        sign = found.group()
        if sign in "*+?":
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        else:
            low = int(found["low"] or 0)
            high = low if not found["comma"] else int(found["high"]) if found["high"] else None
        return lambda: self._write_repeat(part, low, high)

    def _one(self) -> RegexPart:
        text, at = self.text, self.at
        if text[at] == "(":
            group = _GROUP.match(text, at)
            if group is None:
                raise RegexError(f"`{text[at : at + 3]}` can't be matched in linear time")
            self.at = group.end()
            inside = self._choice()
            self.at += 1
            return inside
        found = _CLASS.match(text, at) if text[at] == "[" else _ESCAPE.match(text, at) if text[at] == "\\" else None
        piece = found.group() if found else text[at]
        self.at += len(piece)
        if piece in _PLACES:
            place = _PLACES[piece]
            return lambda: self._write(lambda here: _Step(place=place, ways=(here + 1,)))
        if piece[0] == "\\" and piece[1:].isdigit() and piece[1] != "0" and len(piece) < 4:
            raise RegexError(f"`{piece}` refers to a group, which can't be matched in linear time")
        character = re.compile(re.escape(piece) if len(piece) == 1 and piece != "." else piece, self.flags)
        return lambda: self._write(lambda _: _Step(character))

    def _write(self, step: Callable[[int], _Step]) -> int:
        if len(self.steps) >= LARGEST:
            raise RegexError(f"more than {LARGEST} steps once its repeats are written out")
        self.steps.append(step(len(self.steps)))
        return len(self.steps) - 1

    def _fork(self) -> int:
        return self._write(lambda here: _Step(ways=(here + 1,)))

    def _also(self, fork: int, way: int) -> None:
        self.steps[fork] = _Step(ways=(*self.steps[fork].ways, way))

    def _write_choice(self, parts: list[RegexPart]) -> None:
        ends = []
        for at, part in enumerate(parts):
            fork = self._fork() if at < len(parts) - 1 else None
            part()
            if fork is not None:
                ends.append(self._write(lambda _: _Step()))
                self._also(fork, len(self.steps))
        for end in ends:
            self._also(end, len(self.steps))

    def _write_repeat(self, part: RegexPart, low: int, high: int | None) -> None:
        for _ in range(low):
            self._fork()  # counts, so that a repeated nothing ends
            part()
        if high is None:
            start = self._fork()
            part()
            self._write(lambda _: _Step(ways=(start,)))
            self._also(start, len(self.steps))
            return
        forks = []
        for _ in range(high - low):
            forks.append(self._fork())
            part()
        for fork in forks:
            self._also(fork, len(self.steps))
