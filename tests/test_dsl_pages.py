"""Every diagnostic code has a page, and its examples are true."""

import re
import runpy
from pathlib import Path

import pytest

import qcc.dsl
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.pages import Example, all_codes, explain_code, page
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.load import load_text
from qcc.dsl.policy.schema import Schema

SCHEMA: Schema = runpy.run_path(str(Path(__file__).with_name("test_dsl_schema.py")))["SCHEMA"]
SOURCES = sorted(Path(str(qcc.dsl.__file__)).resolve().parent.rglob("*.py"))


def diagnostics(example: Example) -> list[Diagnostic]:
    report = Diagnostics()
    try:
        load_text(example.text, SCHEMA, definitions=dict(example.definitions), report=report)
    except QccError as error:
        return [*error.diagnostics]
    return [*report.warnings]


@pytest.mark.parametrize("code", all_codes())
def test_examples(code: str) -> None:
    one = page(code)
    if not one.wrong.needs:
        assert {found.code for found in diagnostics(one.wrong)} == {code}
    if not one.right.needs:
        assert diagnostics(one.right) == []


def test_every_code_of_the_language_has_a_page_and_every_page_a_use() -> None:
    used = {code for path in SOURCES for code in re.findall(r'"(Q\d{3})"', path.read_text(encoding="utf-8"))}
    assert used <= set(all_codes())
    assert {code for code in all_codes() if code < "Q300"} <= used


def test_names_are_unique() -> None:
    names = [page(code).name for code in all_codes()]
    assert len(set(names)) == len(names)


def test_explain() -> None:
    assert explain_code("q202").startswith("# Q202: unknown-option\n")
    with pytest.raises(QccError, match="Q113"):
        explain_code("Q999")
