"""Golden texts of the language: what each policy of the folder means, or all that is wrong with it."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from qcc.dsl.diagnostics.render import render
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import to_text
from qcc.dsl.policy.schema import Schema
from qcc.dsl.syntax.parse import parse
from qcc.dsl.syntax.tree import to_text as tree_text

FOLDER = Path(__file__).with_name("golden") / "language"
CASES = sorted(FOLDER.glob("*.qpolicy"))
SCHEMA: Schema = runpy.run_path(str(Path(__file__).with_name("test_dsl_schema.py")))["SCHEMA"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_policy(path: Path, golden: Callable[[Path, str], None]) -> None:
    report = Diagnostics()
    try:
        text = to_text(load_text(path.read_text(encoding="utf-8"), SCHEMA, path.name, report=report))
        text += "".join("\n" + render([one], width=100) for one in report.warnings)
        accepted = True
    except QccError as error:
        text = render(error.diagnostics, width=100)
        accepted = False
    assert accepted == path.stem.endswith("_accept")
    golden(path.with_suffix(".out"), text)


def test_every_accepted_case_has_a_rejected_twin() -> None:
    stems = {path.stem for path in CASES}
    accepted = {stem.removesuffix("_accept") for stem in stems if stem.endswith("_accept")} - {"whole"}
    assert accepted == {stem.removesuffix("_reject") for stem in stems if stem.endswith("_reject")}


def test_syntax_tree(golden: Callable[[Path, str], None]) -> None:
    path = FOLDER / "whole_accept.qpolicy"
    tree = parse(Source(path.name, path.read_text(encoding="utf-8")))
    golden(path.with_suffix(".ast"), tree_text(tree))


@pytest.mark.parametrize("path", [one for one in CASES if one.stem.endswith("_accept")], ids=lambda path: path.stem)
def test_an_expanded_policy_says_the_same(path: Path) -> None:
    policy = load_text(path.read_text(encoding="utf-8"), SCHEMA)
    again = load_text(to_text(policy), SCHEMA)
    assert [(rule.selector, rule.assignments) for rule in again.rules] == [
        (rule.selector, rule.assignments) for rule in policy.rules
    ]
    assert (again.target, again.calibrate, again.export) == (policy.target, policy.calibrate, policy.export)
    assert (again.budget, again.minimize, again.verify) == (policy.budget, policy.minimize, policy.verify)
