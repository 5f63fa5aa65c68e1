"""Every diagnostic's page: what it means, why it is so, a wrong and a right example.

A code is one file, ``pages/<code>.md``; nothing else registers it.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.spelling import nearest

_PAGES = Path(__file__).parent.with_name("pages")
_TITLE = re.compile(r"# (?P<code>Q\d{3}): (?P<name>[a-z0-9-]+)\n")
_EXAMPLE = re.compile(r"## (?P<kind>Wrong|Right)\n\n```qpolicy(?P<flags>[^\n]*)\n(?P<text>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A policy of a page."""

    text: str
    definitions: tuple[tuple[str, str], ...]
    """From `-D name=value` after the fence."""
    needs: str
    """What it takes to show the diagnostic, such as `model`; empty if the policy alone does."""


@dataclass(frozen=True)
class Page:
    """What `qcc explain <code>` prints."""

    code: str
    name: str
    """Named by the fault."""
    text: str
    wrong: Example
    right: Example


def all_codes() -> tuple[str, ...]:
    """Every code there is, in order."""
    return tuple(sorted(path.stem for path in _PAGES.glob("Q*.md")))


@lru_cache(maxsize=256)
def page(code: str) -> Page:
    """A code's page.

    Raises:
        QccError: there is no such code.
        ValueError: its file isn't written as the others.
    """
    code = code.upper()
    if code not in all_codes():
        near = nearest(code, all_codes())
        help = f"did you mean `{near}`?" if near else "codes look like `Q202`"
        raise QccError([Diagnostic("Q113", f"unknown diagnostic code `{code}`", help=help)])
    text = (_PAGES / f"{code}.md").read_text(encoding="utf-8")
    title = _TITLE.match(text)
    examples = {found["kind"]: _example(found["flags"], found["text"]) for found in _EXAMPLE.finditer(text)}
    if title is None or title["code"] != code or set(examples) != {"Wrong", "Right"}:
        raise ValueError(f"{code}.md: a page has a title `# {code}: name` and sections `## Wrong` and `## Right`")
    return Page(code, title["name"], text, examples["Wrong"], examples["Right"])


def _example(flags: str, text: str) -> Example:
    words = flags.split()
    definitions = tuple(after.partition("=")[::2] for word, after in pairwise(words) if word == "-D")
    needs = next((word.removeprefix("needs-") for word in words if word.startswith("needs-")), "")
    return Example(text, definitions, needs)


def explain_code(code: str) -> str:
    """A code's page as text.

    Raises:
        QccError: there is no such code.
    """
    return page(code).text
