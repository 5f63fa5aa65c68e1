"""How the language spells numbers, units and strings."""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

UNITS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "k": ("", 1e3),
        "M": ("", 1e6),
        "G": ("", 1e9),
        "%": ("%", 1),
        "B": ("B", 1),
        "kB": ("B", 1e3),
        "MB": ("B", 1e6),
        "GB": ("B", 1e9),
        "KiB": ("B", 2**10),
        "MiB": ("B", 2**20),
        "GiB": ("B", 2**30),
        "ns": ("ms", 1e-6),
        "us": ("ms", 1e-3),
        "µs": ("ms", 1e-3),
        "ms": ("ms", 1),
        "s": ("ms", 1e3),
        "dB": ("dB", 1),
    }
)
"""Each unit's family, spelled by its base unit, and its factor to that."""

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "": "a plain number",
        "%": "a percentage",
        "B": "a size such as `12 MiB`",
        "ms": "a time such as `4 ms`",
        "dB": "decibels such as `30 dB`",
    }
)
"""What a message calls each family of units."""


def nearest_unit(word: str) -> str | None:
    """The unit that a mistyped one meant; letter case is what people miss most (`mb`, `K`, `Mib`)."""
    same = [unit for unit in UNITS if unit.lower() == word.lower()]
    named = {
        "bytes": "B",
        "byte": "B",
        "sec": "s",
        "seconds": "s",
        "percent": "%",
        "million": "M",
        "kb": "kB",
        "m": "M",
    }
    return same[0] if same else named.get(word.lower())


def from_percent(digits: str) -> float:
    """The share that a percentage is, to the last bit: ``12.3`` is 0.123."""
    return float(Decimal(digits).scaleb(-2))


def percent_text(share: float) -> str:
    """A share as a percentage that reads back as the same number."""
    return f"{Decimal(repr(float(share))).scaleb(2).normalize():f}%"


def number_text(value: float) -> str:
    """The shortest spelling that reads back as the same number."""
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)


def count_text(value: float) -> str:
    """A count in the largest unit that keeps it whole: ``100k``."""
    for unit in ("G", "M", "k"):
        amount = value / UNITS[unit][1]
        if amount >= 1 and amount == int(amount):
            return f"{number_text(amount)}{unit}"
    return number_text(value)


def bytes_text(value: float) -> str:
    """A number of bytes in the largest unit that keeps it exact."""
    for unit in ("GiB", "MiB", "KiB", "GB", "MB", "kB"):
        amount = value / UNITS[unit][1]
        if amount >= 1 and amount == int(amount):
            return f"{number_text(amount)} {unit}"
    return f"{number_text(value)} B"


def unquote(text: str) -> str:
    """What a quoted string says: a backslash makes the next character plain."""
    body = text[1:-1]
    if "\\" not in body:
        return body
    out, escaped = [], False
    for char in body:
        if escaped or char != "\\":
            out.append(char)
        escaped = char == "\\" and not escaped
    return "".join(out)


def quote(text: str) -> str:
    """A text as the language's quoted string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
