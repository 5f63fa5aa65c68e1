"""Parsers from tables that were made before: those of the grammar at hand, or worked out anew."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import lark
import pytest
from lark import Lark, Tree, UnexpectedToken

from qcc.compiler.plan import read_text
from qcc.dsl.syntax import build_tree, grammar
from qcc.dsl.syntax.grammar import Grammar

ROOT = Path(__file__).parent.parent
POLICIES = sorted([*ROOT.glob("dsl/presets/*.qpolicy"), *ROOT.glob("tests/golden/*/*.qpolicy")])
PLANS = sorted(ROOT.glob("tests/golden/plans/*.out"))
GRAMMARS = {"policy": (build_tree.GRAMMAR, POLICIES), "plan": (read_text.GRAMMAR, PLANS)}


def parsed(parser: Lark, text: str, start: str) -> Tree[lark.Token] | tuple[str, int | None, set[str]]:
    """The tree, or where it is wrong and what might have stood there."""
    try:
        return parser.parse(text, start=start)
    except UnexpectedToken as wrong:
        return wrong.token.type, wrong.token.start_pos, wrong.accepts or set()


@pytest.mark.parametrize("name", GRAMMARS)
def test_tables_are_of_the_grammar_at_hand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is what makes `qcc check` fast: `python docs/generate.py` writes them."""
    found, _ = GRAMMARS[name]
    made: list[object] = []
    monkeypatch.setattr(grammar, "Lark", _counted(made))
    found.parser()
    assert made == []
    assert found.tables() == found.tables_path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GRAMMARS)
def test_they_parse_as_the_grammar_does(name: str, tmp_path: Path) -> None:
    found, texts = GRAMMARS[name]
    shutil.copy(found.path, tmp_path)
    ready, anew = found.parser(), replace(found, path=tmp_path / found.path.name).parser()
    assert len(texts) > 3
    for path in texts:
        text = path.read_text(encoding="utf-8")
        for cut in (text, text[: len(text) // 2]):
            assert parsed(ready, cut, found.starts[0]) == parsed(anew, cut, found.starts[0]), path


@pytest.mark.parametrize("damage", ["none", "no text", "no tables", "another grammar", "another lark"])
def test_others_are_worked_out_anew(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word, and nothing is written."""
    kept = Grammar(tmp_path / "plan.lark")
    shutil.copy(read_text.GRAMMAR.path, kept.path)
    shutil.copy(read_text.GRAMMAR.tables_path, kept.tables_path)
    made: list[object] = []
    monkeypatch.setattr(grammar, "Lark", _counted(made))
    if damage == "no text":
        kept.tables_path.write_bytes(b"\xff{")
    elif damage == "no tables":
        kept.tables_path.write_text(json.dumps([]), encoding="utf-8")
    elif damage == "another grammar":
        kept.path.write_text(kept.path.read_text(encoding="utf-8") + "\n// another\n", encoding="utf-8")
    elif damage == "another lark":
        monkeypatch.setattr(lark, "__version__", "1.99")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert isinstance(kept.parser().parse(PLANS[0].read_text(encoding="utf-8")), Tree)
    assert len(made) == (damage != "none")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def _counted(made: list[object]) -> type[Lark]:
    class Counted(Lark):
        def __init__(self, *given: object, **options: object) -> None:
            made.append(given)
            super().__init__(*given, **options)  # type: ignore[arg-type]

    return Counted
