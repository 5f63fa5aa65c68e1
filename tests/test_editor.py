"""The language server: recorded sessions of clients, and the laws of what it tells while one types."""

import io
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qcc.__main__ import main
from qcc.compiler.editor.complete import completions
from qcc.compiler.editor.document import Document, position
from qcc.compiler.editor.hints import layer_counts
from qcc.compiler.editor.rpc import BrokenStreamError, Message, messages, write_message
from qcc.compiler.editor.server import Server
from qcc.compiler.editor.textmate import grammar, snippets
from qcc.compiler.plan.catalog import schema
from qcc.dsl.load import load_text
from qcc.dsl.policy.select import Facts
from qcc.dsl.syntax.format import format_source

ROOT = Path(__file__).parent.parent
SESSIONS = sorted((Path(__file__).parent / "golden" / "editor").glob("*.session"))
VSCODE = ROOT / "editors" / "vscode"
URI = "file:///nowhere/a.qpolicy"


def replay(sent: list[Message]) -> tuple[int, list[Message]]:
    source, sink = io.BytesIO(), io.BytesIO()
    for message in sent:
        write_message(source, message)
    source.seek(0)
    status = Server(source, sink).run()
    sink.seek(0)
    return status, list(messages(sink))


@pytest.mark.parametrize("session", SESSIONS, ids=lambda path: path.stem)
def test_sessions(session: Path, golden: Callable[[Path, str], None], capsys: pytest.CaptureFixture[str]) -> None:
    status, got = replay([json.loads(line) for line in session.read_text(encoding="utf-8").splitlines()])
    assert status == 0
    told = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in got[1:])
    golden(session.with_suffix(".out"), told)


def test_it_answers_before_the_language_is_loaded() -> None:
    """And loads nothing heavy for it; a client that leaves without a word is an error."""
    script = (
        "import io, sys; from qcc.compiler.editor.server import Server; "
        "from qcc.compiler.editor.rpc import write_message; source = io.BytesIO(); "
        "write_message(source, {'id': 1, 'method': 'initialize', 'params': {}}); source.seek(0); "
        "status = Server(source, io.BytesIO()).run(); "
        "print(status, [name for name in ('numpy', 'lark', 'onnx', 'qcc.compiler.plan') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout == "1 []\n", run.stderr


@pytest.mark.parametrize(
    "text",
    ["rule linear\n\n", "Content-Length: 3\r\n\r\n{]}", "Content-Length: x\r\n\r\n", "Content-Length: 2\r\n\r\n[]"],
)
def test_what_is_no_message_reject(text: str) -> None:
    with pytest.raises(BrokenStreamError):
        Server(io.BytesIO(text.encode()), io.BytesIO()).run()


def test_a_shell_is_told_who_starts_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"rule linear {\n\n")))
    assert main(["lsp"]) == 1
    assert "Q591" in capsys.readouterr().err


PARTS = (
    'let tail = any[name ~ "*tail*"]',
    "param width = 32",
    "rule linear { weights = int4 group $width }",
    "rule conv[in == 1] {\n    weights = int{3,4} channel\n    rounding = gptq(damping = 0.1)\n}",
    "rule tail { keep }",
    "budget { size <= 20% }",
    "verify { cosine >= 0.9 }; rule embedding { weights = int8 channel }",
)
KEYS = (" ", "x", "4", "{", "}", "(", ")", "\n", "int4", "|", "#", "=", ";", '"', "$width", "rule any { keep }\n", "🙂")


@pytest.mark.parametrize("seed", range(12))
def test_keystrokes_come_to_what_the_whole_says(seed: int) -> None:
    """Whatever was typed: places are as an editor counts them, and a rested typist is told what a fresh look tells."""
    draw = random.Random(seed)
    text = "qpolicy 1\n" + "\n".join(draw.sample(PARTS, 5)) + "\n"
    one = Document(URI, text)
    one.settle(schema())
    for version in range(12):
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + draw.choice((0, 0, 0, 1, 5)))
        typed = draw.choice(KEYS)
        where = {"start": position(one.source, start), "end": position(one.source, end)}
        text = text[:start] + typed + text[end:]
        one.change([{"range": where, "text": typed}], version, schema())
        assert one.text == text
        assert all(found.span is None or found.span.end <= len(text) for found in one.found)
        fresh = Document(URI, text)
        fresh.settle(schema())
        one.settle(schema())
        assert one.found == fresh.found


def test_what_is_typed_in_a_rule_is_told_at_once() -> None:
    text = "qpolicy 1\nrule linear { weights = int4 }\nrule conv { weights = int8 channel }\n"
    one = Document(URI, text)
    one.settle(schema())
    at = position(one.source, text.index("int4") + 4)
    one.change([{"range": {"start": at, "end": at}, "text": " gruop 3"}], 2, schema())
    assert [found.code for found in one.found] == ["Q210"]
    assert not one.settled


AT = "‸"
COMPLETIONS = {
    "‸": {"rule", "budget", "use"},
    "qpolicy 1\nru‸": {"rule"},
    "rule ‸ { keep }": {"linear", "any", "not"},
    "rule linear[‸] { keep }": {"name", "params"},
    "rule linear[op == ‸] { keep }": {"linear"},
    "rule linear[position ‸] { keep }": {"<="},
    "rule linear[position == ‸] { keep }": {"first", "last"},
    "let a = conv\nrule a‸ { keep }": {"a", "any"},
    "rule linear {\n    ‸\n}": {"weights", "rounding", "keep"},
    "rule linear { weights = ‸": {"int4", "nf4", "bands"},
    "rule linear { weights = int4 ‸": {"group", "channel", "scale"},
    "rule linear { weights = int4 group 32 scale ‸": {"fp16"},
    "rule linear { weights = int4 group 32 | ‸": {"int8"},
    "rule linear { weights = bands(‸": {"int4", "share"},
    "rule linear { rounding = ‸": {"gptq", "nearest"},
    "rule linear { rounding = gptq(‸": {"damping", "clip"},
    "rule linear { rounding = gptq(damping = 1, clip = ‸": {"mse"},
    "param width = 3\nrule linear { weights = int4 group $‸": {"$width"},
    "budget { ‸": {"size", "bits"},
    "verify { ‸": {"cosine"},
    "minimize ‸": {"output_error", "size"},
    "target ‸": {"cpu", "onnxruntime"},
    "export { ‸": {"opset"},
    "export { external_data = ‸": {"auto"},
    "calibrate ‸": {"generated"},
    'calibrate "a.npz" { ‸': {"samples", "seed"},
    'use "‸"': {"balanced", "tiny"},
    "depth { ‸": {"leave_out", "cure", "share"},
}


@pytest.mark.parametrize("text", COMPLETIONS)
def test_completion(text: str) -> None:
    offset = text.index(AT)
    found = [one.label for one in completions(Document(URI, text.replace(AT, "")), offset, schema())]
    assert COMPLETIONS[text] <= set(found)


@pytest.mark.parametrize("text", ["# rule ‸", 'rule any[name ~ "‸"] { keep }', "rule linear { keep = ‸", "qpolicy ‸"])
def test_nothing_is_offered_where_anything_may_stand_reject(text: str) -> None:
    assert completions(Document(URI, text.replace(AT, "")), text.index(AT), schema()) == []


def test_words_of_one_set_exclude_each_other() -> None:
    text = "rule linear { weights = int4 channel "
    found = {one.label for one in completions(Document(URI, text), len(text), schema())}
    assert "group" not in found and "sym" in found


def test_rules_tell_how_many_layers_they_match() -> None:
    text = "qpolicy 1\nrule linear { weights = int4 }\nrule conv[in == 1] { keep }\n"
    one = Document(URI, text)
    one.settle(schema())
    known = [[_facts("a", "linear", 3)], [_facts("b", "linear", 3), _facts("c", "linear", 4)], [_facts("d", "conv", 1)]]
    assert layer_counts(one, known) == [(text.index(" {"), " 2 layers"), (text.index("] {") + 1, " 1 layer")]


def _facts(name: str, kind: str, inputs: int) -> Facts:
    return Facts(name, frozenset((kind,)), 12, 4, inputs, "float32", 0, 4)


def test_the_extension_is_made_of_what_there_is() -> None:
    package = json.loads((VSCODE / "package.json").read_text(encoding="utf-8"))
    contributes = package["contributes"]
    named = [contributes["grammars"][0]["path"], contributes["snippets"][0]["path"], package["main"]]
    named.append(contributes["languages"][0]["configuration"])
    assert [path for path in named if not (VSCODE / path).is_file()] == []
    json.loads((VSCODE / contributes["languages"][0]["configuration"]).read_text(encoding="utf-8"))


def test_snippets_are_policies() -> None:
    """With their first choices in the places that are to be filled in."""
    for told, one in snippets(schema()).items():
        text = re.sub(r"\$\{\d+(?::([^}]*)|\|([^,|]*)[^}]*)\}", r"\1\2", "\n".join(one["body"])) + "\n"
        assert format_source(text), told
        load_text(text, schema())


def test_the_grammar_colours_what_policies_name() -> None:
    patterns = {one["name"]: re.compile(one["match"]) for one in grammar(schema())["patterns"] if "match" in one}
    for word, scope in {
        "weights": "support.type.property-name",
        "nf4": "support.type",
        "gptq": "support.function",
    }.items():
        assert patterns[f"{scope}.qpolicy"].fullmatch(word)
    assert not patterns["support.function.qpolicy"].search("my-gptq")
