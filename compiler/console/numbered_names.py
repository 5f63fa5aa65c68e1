"""Names that differ in one number, as those of a network's repeated layers do, said as one: ``layers.{0..5}``."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
_NUMBER = re.compile(r"\d+")


def template(name: str) -> str:
    """A name without its numbers."""
    return _NUMBER.sub("#", name)


def collapse(
    items: Iterable[T], name: Callable[[T], str], alike: Callable[[T], Hashable] = lambda _: None
) -> list[tuple[str, list[T]]]:
    """Items whose names differ in one number and that are alike, each time under one name; in order of the first."""
    buckets: dict[Hashable, list[T]] = {}
    order: dict[int, int] = {}
    for at, item in enumerate(items):
        order[id(item)] = at
        buckets.setdefault((template(name(item)), alike(item)), []).append(item)
    found = [one for bucket in buckets.values() for one in _parts(bucket, name)]
    found.sort(key=lambda one: order[id(one[0])])
    return [(_joined([name(item) for item in part]), part) for part in found]


def patterns(names: Iterable[str]) -> list[str]:
    """Names, those that differ in one number as one."""
    return [pattern for pattern, _ in collapse(list(dict.fromkeys(names)), str)]


def _parts(bucket: Sequence[T], name: Callable[[T], str]) -> list[list[T]]:
    """A bucket of one template, cut so that in each part one number differs: the one that leaves the fewest parts."""
    numbers = [_NUMBER.findall(name(item)) for item in bucket]
    best: list[list[T]] | None = None
    for position in range(len(numbers[0])):
        parts: dict[tuple[str, ...], list[T]] = {}
        for item, own in zip(bucket, numbers, strict=True):
            parts.setdefault((*own[:position], *own[position + 1 :]), []).append(item)
        if best is None or len(parts) < len(best):
            best = list(parts.values())
    return best if best is not None else [[item] for item in bucket]


def _joined(names: Sequence[str]) -> str:
    """One name for names that differ in one number at most."""
    if len(set(names)) == 1:
        return names[0]
    rows = [_NUMBER.findall(name) for name in names]
    text = _NUMBER.split(names[0])
    parts = [text[0]]
    for position, rest in enumerate(text[1:]):
        found = list(dict.fromkeys(row[position] for row in rows))
        parts.append((found[0] if len(found) == 1 else f"{{{ranges(found)}}}") + rest)
    return "".join(parts)


def ranges(found: Sequence[str]) -> str:
    """Numbers, runs of them as ``0..5``."""
    runs: list[list[int]] = []
    for number in sorted({int(one) for one in found}):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(_run(first, last) for first, last in runs)


def _run(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first}{',' if last == first + 1 else '..'}{last}"
