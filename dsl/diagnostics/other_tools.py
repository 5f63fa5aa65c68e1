"""Words of other tools: what someone who knows them writes, and how this language says it.

The words are data, in ``other_tools.toml``.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

Place = Literal[
    "", "command", "format", "method", "metric", "objective", "option", "property", "selector", "statement", "target",
    "word",
]  # fmt: skip
"""Where a word stands; empty where only words of the language itself make sense."""

_TABLE = Path(__file__).with_suffix(".toml")


def told(word: str, place: Place) -> str | None:
    """A help line for a word of another tool, if it is one."""
    tables = other_tools()
    name = word.lower().replace("-", "_")
    here = tables.get(place, {}).get(name)
    return tables["anywhere"].get(name) if here is None and place not in ("", "command") else here


@lru_cache(maxsize=1)
def other_tools() -> dict[str, dict[str, str]]:
    """The table: by place, each word's help line."""
    import tomllib  # a text without mistakes needs none of it

    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))
