"""Scripts of the user's: run with their own folder in the path, and told where they fail."""

import sys
from pathlib import Path

import pytest

from qcc.ir.errors import ModelError
from qcc.ir.script import run_script

TEXT = """from __future__ import annotations
from dataclasses import dataclass
from beside_a_script import NUMBER

@dataclass
class Held:
    number: int

held = Held(NUMBER)
"""


def test_classes_and_modules_beside_it_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_a_script.py").write_text("NUMBER = 3\n", encoding="utf-8")
    (tmp_path / "own.py").write_text(TEXT, encoding="utf-8")
    assert run_script(tmp_path / "own.py", "qcc_own", "Q570").held.number == 3
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [("x = 1\nraise ValueError('no')\n", "ValueError: no, line 2"), ("x =\n", "line 1"), ("exit(3)\n", "it exits")],
)
def test_what_fails_is_told_with_its_line_reject(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        run_script(path, "qcc_own", "Q570")
    assert caught.value.code == "Q570" and words in str(caught.value)


def test_a_script_that_is_not_there_reject(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such script"):
        run_script(tmp_path / "none.py", "qcc_own", "Q570")
