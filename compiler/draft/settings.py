"""A configuration that is read leaf by leaf, so that none of it is dropped in silence."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from qcc.dsl.syntax.literals import quote

MOST_DEEP = 40
MOST = 1e12
"""What a number of a configuration is at most; JSON in Python has NaN and infinity."""


@dataclass(frozen=True)
class LeftOption:
    """An option that is not in the policy, and why."""

    path: str
    value: str
    reason: str


@dataclass
class Draft:
    """A policy in the making: rules by selector in order, other statements, and what became of every option."""

    rules: dict[str, dict[str, str]] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)
    exported: dict[str, str] = field(default_factory=dict)
    left: list[LeftOption] = field(default_factory=list)
    """Options that change what comes out, and that this language has no word for, or only nearly one."""
    moot: list[LeftOption] = field(default_factory=list)
    """Options that say nothing about the written model."""

    def set(self, selector: str, **settings: str) -> None:
        """Give layers properties; those that were left as they are no longer are."""
        if "keep" in self.rules.get(selector, {}):
            del self.rules[selector]
        self.rules.setdefault(selector, {}).update(settings)

    def set_first(self, selector: str, **settings: str) -> None:
        """Give properties to what nothing else is said of."""
        self.rules = {selector: settings | self.rules.pop(selector, {}), **self.rules}

    def keep(self, selector: str) -> None:
        """Leave layers as they are, whatever was said before."""
        self.rules.pop(selector, None)
        self.rules[selector] = {"keep": ""}

    def keep_named(self, name: str, glob: bool = False) -> None:
        """Leave the layers of a name as they are."""
        if not name.isprintable():
            self.miss("names", name, "a name in a policy is on one line")
            return
        self.keep(f"any[name {'~' if glob else '=='} {quote(name)}]")

    def miss(self, path: str, value: object, reason: str) -> None:
        """Name what is not translated."""
        self.left.append(LeftOption(path, spelled(value), reason))


NO_WORD = "the language has no word for it"


@dataclass
class Settings:
    """An object of a configuration; what nobody took is named at the end.

    Args:
        found: the object.
        draft: which is told.
        path: of the object in the configuration.
    """

    found: dict[str, Any]
    draft: Draft
    path: str = ""
    taken: set[str] = field(default_factory=set)

    def place(self, key: str) -> str:
        """The path of a value."""
        return f"{self.path}.{key}" if self.path else key

    def take(self, *keys: str, default: Any = None) -> Any:  # noqa: ANN401 - JSON
        """The value of the first of some keys that is there; all of them count as read."""
        there = [key for key in keys if key in self.found]
        self.taken |= set(there)
        return self.found[there[0]] if there else default

    def number(self, *keys: str, default: float) -> float:
        """The number of the first of some keys that is there; what is none is named."""
        found = self.optional_number(*keys, otherwise=f"{default:g} is taken")
        return default if found is None else found

    def optional_number(self, *keys: str, otherwise: str = "it is left out") -> float | None:
        """The number of the first of some keys that is there, if one is; what is none is named."""
        value = self.take(*keys)
        found = number(value)
        if found is None and value is not None:
            self._miss_first(keys, value, f"it is no number: {otherwise}")
        return found

    def flag(self, *keys: str, default: bool) -> bool:
        """The truth value of the first of some keys that is there; what is none is named."""
        value = self.take(*keys)
        if value is not None and not isinstance(value, bool):
            self._miss_first(keys, value, f"it is neither true nor false: {spelled(default)} is taken")
        return value if isinstance(value, bool) else default

    def names(self, *keys: str) -> list[str]:
        """The texts under the first of some keys that is there, or the one; what is none is named."""
        value = self.take(*keys)
        listed = value if isinstance(value, list) else [] if value is None else [value]
        for one in listed:
            if not isinstance(one, str):
                self._miss_first(keys, one, "it is no name")
        return [one for one in listed if isinstance(one, str)]

    def _miss_first(self, keys: tuple[str, ...], value: object, reason: str) -> None:
        key = next(key for key in keys if key in self.found)
        self.draft.miss(self.place(key), value, reason)

    def inner(self, key: str) -> "Settings":
        """An object in the object; empty where it is none."""
        value = self.found.get(key)
        if isinstance(value, dict):
            self.taken.add(key)
        return Settings(value if isinstance(value, dict) else {}, self.draft, self.place(key))

    def moot(self, reason: str, *keys: str) -> None:
        """Options that say nothing about the written model."""
        for key in keys:
            if key in self.found and key not in self.taken:
                self.taken.add(key)
                self.draft.moot.append(LeftOption(self.place(key), spelled(self.found[key]), reason))

    def miss(self, key: str, reason: str = NO_WORD) -> None:
        """An option that was looked at, and that cannot be translated as it is."""
        if key in self.found:
            self.taken.add(key)
            self.draft.miss(self.place(key), self.found[key], reason)

    def finish(self) -> None:
        """Name all that nobody took."""
        for key in self.found:
            if key not in self.taken:
                for path, value in _leaves(self.place(key), self.found[key]):
                    self.draft.miss(path, value, NO_WORD)
        self.taken = set(self.found)


def _leaves(path: str, value: object, depth: int = 0) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value and depth < MOST_DEEP:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner, depth + 1)
        return
    yield path, value


def spelled(value: object) -> str:
    """A value in few letters."""
    text = {True: "true", False: "false", None: "null"}.get(value) if isinstance(value, bool | None) else None
    shown = str(value) if text is None else text
    shown = " ".join(shown.split())
    return shown if len(shown) <= 60 else shown[:57] + "..."


def number(value: object) -> float | None:
    """A number that is one, not a truth value."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not -MOST <= value <= MOST:
        return None
    return float(value)
