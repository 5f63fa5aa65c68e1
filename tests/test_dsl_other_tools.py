"""Words of other tools are answered with ours, and what the answer says is legal."""

import re

import pytest

from qcc.compiler.commands.cli import COMMANDS
from qcc.compiler.plan.catalog import schema
from qcc.dsl.diagnostics.other_tools import other_tools, told
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text

TABLE = other_tools()
WHERE = {
    "format": "rule any {{ weights = {} }}",
    "word": "rule any {{ weights = int8 {} }}",
    "method": "rule any {{ rounding = {} }}",
    "property": "rule any {{ {} = 3 }}",
    "selector": "rule {} {{ keep }}",
    "metric": "budget {{ {} <= 10% }}",
    "objective": "minimize {}",
    "target": "target {}",
    "option": 'calibrate "x.npz" {{ {} = 3 }}',
    "statement": "{} = 3",
    "anywhere": "rule any {{ {} = 3 }}",
}
LEGAL = (
    "{}",
    "rule any {{ {} }}",
    "rule {} {{ keep }}",
    "rule any {{ weights = {} }}",
    "rule any {{ weights = int8 {} }}",
    "rule any {{ weights = int8 channel {} }}",
    "rule any {{ weights = int8 {} channel }}",
    "rule any {{ rounding = {} }}",
    "rule any {{ rounding = gptq({}) }}",
    'calibrate "x.npz" {{ {} }}',
    "export {{ {} }}",
)


def helps(text: str) -> list[str | None]:
    try:
        load_text(text, schema())
    except QccError as error:
        return [one.help for one in error.diagnostics]
    return []


@pytest.mark.parametrize(
    ("place", "word"), [(place, word) for place in TABLE if place != "command" for word in TABLE[place]]
)
def test_a_word_of_another_tool_is_answered(place: str, word: str) -> None:
    assert TABLE[place][word] in helps(WHERE[place].format(word)), helps(WHERE[place].format(word))


@pytest.mark.parametrize("help", sorted({help for words in TABLE.values() for help in words.values()}))
def test_what_an_answer_says_is_legal(help: str) -> None:
    for said in re.findall("`([^`]+)`", help):
        if said.startswith("qcc "):
            assert said.split()[1] in COMMANDS
        elif said == "rule":
            continue
        else:
            # `balanced` is a preset, `other.qpolicy` a file that is not there
            text = said.replace("other.qpolicy", "balanced")
            assert any(not helps(one.format(text)) for one in LEGAL), said


def test_a_word_is_found_however_it_is_spelled_and_only_where_it_means_something() -> None:
    assert told("Per-Channel", "property") == told("per_channel", "anywhere")  # type: ignore[arg-type]
    assert told("group", "word") is None and told("uint8", "") is None and told("uint8", "metric") is None


def test_the_words_of_the_language_are_not_in_the_table() -> None:
    known = schema()
    ours = {
        "format": known.formats,
        "word": known.formats["int"].words,
        "method": {**known.properties["rounding"].methods, **known.properties["activations"].methods},
        "property": known.properties,
        "selector": dict.fromkeys((*known.kinds, "any")),
        "metric": {**known.budget, **known.verify},
        "objective": dict.fromkeys(known.objectives),
        "target": known.targets,
        "command": COMMANDS,
    }
    legal_elsewhere = {"size", "bits"}  # a metric that is told how to stand in a block
    for place, words in ours.items():
        assert not (TABLE.get(place, {}).keys() & words.keys()) - legal_elsewhere, place
