"""The schema that is written down: policies are held to the same by it as by the passes and formats themselves."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.compiler.editor.known import known_schema
from qcc.compiler.plan.catalog import schema
from qcc.dsl.diagnostics.pages import all_codes, page
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.load import load_text, preset_names, preset_source
from qcc.dsl.policy.policy import FormatSpec
from qcc.dsl.policy.schema import Schema

ROOT = Path(__file__).parent.parent
FILES = sorted({*ROOT.glob("benchmarks/policies/*.qpolicy"), *ROOT.glob("tests/golden/language/*.qpolicy")})
EXAMPLES = {
    f"{code} {side}": one.text
    for code in all_codes()
    for side, one in (("wrong", page(code).wrong), ("right", page(code).right))
}
TEXTS = {
    **{str(one.relative_to(ROOT)): one.read_text(encoding="utf-8") for one in FILES},
    **{name: preset_source(name).text for name in preset_names()},
    **EXAMPLES,
}

SPELLED = [one for one in schema().formats.values() if one.arguments is None]


def told(text: str, known: Schema) -> list[tuple[object, ...]]:
    """All that is said of a policy: codes, places and words."""
    report = Diagnostics()
    found = []
    try:
        load_text(text, known, report=report)
    except QccError as error:
        found = list(error.diagnostics)
    return [(one.code, one.message, one.help, one.note, one.span) for one in (*found, *report.warnings)]


@pytest.mark.parametrize("name", TEXTS)
def test_policies_are_held_to_the_same(name: str) -> None:
    assert told(TEXTS[name], known_schema()) == told(TEXTS[name], schema())


@given(st.data())
def test_whether_words_go_together_is_not_a_matter_of_numbers(data: st.DataObject) -> None:
    """What is written down are words; the numbers that stood for all others were 32 and 16x16."""
    family = data.draw(st.sampled_from(SPELLED))
    bits = None if family.bits is None else data.draw(st.integers(*family.bits))
    words: dict[str, int | str | tuple[int, ...] | bool] = {}
    sets: set[str] = set()
    for name in data.draw(
        st.lists(st.sampled_from(sorted(family.words)), unique=True) if family.words else st.just([])
    ):
        word = family.words[name]
        if (word.excludes or name) in sets:
            continue
        sets.add(word.excludes or name)
        number = st.integers(word.low, word.high)
        if isinstance(word.argument, tuple):
            words[name] = data.draw(st.sampled_from(word.argument))
        elif word.argument is None:
            words[name] = True
        else:
            words[name] = data.draw(number) if word.argument == "int" else (data.draw(number), data.draw(number))
    spec = FormatSpec(family.keyword, bits, words, Span(Source("", ""), 0, 0))
    assert known_schema().formats[family.keyword].fault(spec) == family.fault(spec)


def test_checking_loads_neither_passes_nor_numpy() -> None:
    code = (
        "import sys; from qcc.__main__ import main; status = main(['check', 'balanced', 'tiny', 'fast', 'lossless']);"
        "print(status, [name for name in sys.modules if name in ('numpy', 'onnx', 'qcc.passes')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
