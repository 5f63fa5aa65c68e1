"""Grammars, and their parsers from tables that were made before.

To work out the tables of a grammar takes longer than all else of checking a short policy. They lie in a file beside it,
which `python docs/generate.py` writes, and which says what it was made of: the grammar, how it is used, and the version
of lark. Where that is another, the tables are worked out anew.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lark
from lark import Lark
from lark.grammar import Rule
from lark.lark import PostLex
from lark.lexer import TerminalDef


@dataclass(frozen=True)
class Grammar:
    """A grammar for lark's LALR parser.

    Args:
        path: of its text.
        starts: what may be parsed.
        postlex: what tokens go through.
    """

    path: Path
    starts: tuple[str, ...] = ("start",)
    postlex: PostLex | None = None

    @property
    def tables_path(self) -> Path:
        """Where the tables lie."""
        return self.path.with_suffix(".tables.json")

    def parser(self, transformer: Any = None) -> Lark:  # noqa: ANN401 - as lark has it
        """A parser that hands nodes to a transformer while it parses."""
        made = self._made
        if made is None:
            return self._work_out(transformer)
        use = {"postlex": self.postlex, "transformer": transformer}
        found: Lark = Lark._load_from_dict(made["data"], made["memo"], **use)  # type: ignore[no-untyped-call]  # lark's own
        return found

    def lexer(self) -> Lark:
        """What knows all tokens, also those that no rule names."""
        return Lark(self._text, parser=None, lexer="basic", start=list(self.starts))

    def tables(self) -> str:
        """What the file of tables should hold: what it holds, unless that was made of something else."""
        if self._made is not None:
            return self.tables_path.read_text(encoding="utf-8")
        data, memo = self._work_out().memo_serialize([TerminalDef, Rule])
        data["options"] |= {"postlex": None, "transformer": None}
        return json.dumps({"made_of": self._made_of, "data": data, "memo": memo}, separators=(",", ":")) + "\n"

    def _work_out(self, transformer: Any = None) -> Lark:  # noqa: ANN401
        return Lark(
            self._text,
            parser="lalr",
            lexer="contextual",
            start=list(self.starts),
            postlex=self.postlex,
            transformer=transformer,
            maybe_placeholders=False,
        )

    @cached_property
    def _text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def _made_of(self) -> str:
        accepted = sorted(self.postlex.always_accept) if self.postlex is not None else []
        told = json.dumps([lark.__version__, self._text, self.starts, accepted])
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def _made(self) -> dict[str, Any] | None:
        """The tables, if they are this grammar's."""
        try:
            found = json.loads(self.tables_path.read_text(encoding="utf-8"), object_hook=_with_numbers)
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and found.get("made_of") == self._made_of else None


def _with_numbers(found: dict[str, Any]) -> dict[str | int, Any]:
    """JSON spells the numbers of states as texts."""
    return {int(key) if key.isdigit() else key: value for key, value in found.items()}
