"""Fixes: what a help line says, done to the text, ends the diagnostic and begins no other."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qcc.__main__ import main
from qcc.compiler.plan.catalog import schema
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.render import render
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.fixes import applied, fixes
from qcc.dsl.load import faults


def _found(text: str) -> list[Diagnostic]:
    return faults(Source("a.qpolicy", text), schema(), None)[1]


def _fixed(text: str) -> list[str]:
    """The text after each fix that there is."""
    found = _found(text)
    return [applied(text, fix.edits) for one in found for fix in fixes(one, found, _found)]


RULE = "rule linear { weights = int4 }\n"
FIXED = {
    "rule linear { weights = int4 gruop 32 }\n": "rule linear { weights = int4 group 32 }\n",
    "rule linear { weights: int4 }\n": "rule linear { weights = int4 }\n",
    "rule linear { weights = int9 }\n": "rule linear { weights = int8 }\n",
    "rule linear { rounding = gptq(dampin = 1) }\n": "rule linear { rounding = gptq(damping = 1) }\n",
    "rule linaer { keep }\n" + RULE: "rule linear { keep }\n" + RULE,
    "rule linear[params > 100K] { keep }\n" + RULE: "rule linear[params > 100k] { keep }\n" + RULE,
    RULE + "verify { cosine > 0.9 }\n": RULE + "verify { cosine >= 0.9 }\n",
    'use "balancd"\n': 'use "balanced"\n',
    "rule linear { weights = int4 int8 }\n": "rule linear { weights = int4 | int8 }\n",
    "rule linear { weights = int4 | int4 }\n": "rule linear { weights = int4 }\n",
    "rule linear { weights = int4\n" + RULE: "rule linear { weights = int4\n}\n" + RULE,
    RULE + "qpolicy 1\n": RULE,
}


@pytest.mark.parametrize("text", FIXED)
def test_fixed(text: str) -> None:
    assert _fixed(text)[:1] == [FIXED[text]]


@pytest.mark.parametrize(
    "text",
    [
        "rule linear { weights = w4a8 }\n",  # its help says two settings
        "rule linear { weights = bands(int4) }\n",
        "rule linear { weights = quux }\n",
        "rule linear[in > 3 && out > 4] { keep }\n",  # `and` stands between selectors, not between predicates
        "rule linear { weights = }\n",
        "calibrate { samples = 3 }\n",
    ],
)
def test_what_has_no_one_answer_reject(text: str) -> None:
    assert _fixed(text) == []


def test_a_fix_that_begins_another_fault_is_none() -> None:
    """`weights` twice: the first spelling mended would stand beside the second."""
    assert _fixed("rule linear { weigths = int4; weights = int8 }\n") == []


TWICE = "qpolicy 1\nlet a = linear\nlet a = conv\nrule a { keep }\nrule linear { weights = int4 gruop 32 }\n"


def test_places_and_fixes_are_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.qpolicy"
    path.write_text(TWICE, encoding="utf-8")
    assert main(["check", str(path), "--format", "json"]) == 1
    twice, word = json.loads(capsys.readouterr().out)["diagnostics"]
    assert [(one["line"], one["column"], one["message"]) for one in twice["related"]] == [(2, 5, "first here")]
    (edit,) = word["fixes"][0]["edits"]
    assert (edit["line"], edit["column"], edit["end_column"], edit["text"]) == (5, 30, 35, "group")


def test_sarif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a b.qpolicy"
    path.write_text(TWICE, encoding="utf-8")
    assert main(["check", str(path), "--format", "sarif"]) == 1
    told = json.loads(capsys.readouterr().out)
    (run,) = told["runs"]
    assert (told["version"], run["tool"]["driver"]["name"]) == ("2.1.0", "qcc")
    assert [one["ruleId"] for one in run["results"]] == ["Q206", "Q210"]
    assert all(run["tool"]["driver"]["rules"][one["ruleIndex"]]["id"] == one["ruleId"] for one in run["results"])
    place = run["results"][1]["locations"][0]["physicalLocation"]
    assert place["region"] == {"startLine": 5, "startColumn": 30, "endLine": 5, "endColumn": 35}
    assert place["artifactLocation"]["uri"].endswith("a%20b.qpolicy")
    (change,) = run["results"][1]["fixes"][0]["artifactChanges"]
    assert change["replacements"][0]["insertedContent"] == {"text": "group"}
    assert run["results"][0]["relatedLocations"][0]["message"] == {"text": "first here"}


def test_sarif_of_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "balanced", "--format=sarif"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["results"] == []
    assert main(["check", "--nonsense", "--format=sarif"]) == 2
    assert json.loads(capsys.readouterr().out)["runs"][0]["results"][0]["ruleId"] == "usage"


def test_a_diagnostic_without_a_place_has_none() -> None:
    (result,) = json.loads(render([Diagnostic("Q462", "no model")], format="sarif"))["runs"][0]["results"]
    assert "locations" not in result
    assert fixes(replace(Diagnostic("Q462", "no model"), help="write `x`"), [], _found) == ()
