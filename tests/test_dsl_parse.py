"""The parser on files as they come: broken, binary, enormous."""

import cProfile
import sys
import time
from pathlib import Path

import pytest

from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.syntax.parse import load_source, parse
from qcc.dsl.syntax.tree import File

RULE = 'rule linear[name ~ "a*"] { weights = int{2,3} group {32,64} | int8 channel\n rounding = gptq(damp = 3%) }\n'


def tree(text: str) -> File:
    return parse(Source("t", text))


def codes(text: str) -> list[str]:
    with pytest.raises(QccError) as caught:
        tree(text)
    return [one.code for one in caught.value.diagnostics]


def test_newlines_bom_and_line_ends_do_not_matter() -> None:
    plain = tree("qpolicy 1\nrule linear { weights = int4\n rounding = nearest }\n")
    assert tree("\ufeffqpolicy 1\r\nrule linear { weights = int4\r\n rounding = nearest }\r\n") == plain
    assert tree("qpolicy 1; rule linear { weights = int4; rounding = nearest };") == plain
    assert tree("\n\n;qpolicy 1 # c\n;;\nrule linear\n# c\n{\n\nweights = int4,\nrounding = nearest\n\n}") == plain
    assert tree("qpolicy 1\nrule linear {\n    weights =\n      int4\n    rounding = nearest\n}") == plain


def test_lines_go_on() -> None:
    plain = tree("rule linear, conv and x { weights = int4 | int8; a = b(c = 1, d = 2) }")
    assert tree("rule linear,\n conv\n and x { weights = int4 |\n int8\n a = b(\nc = 1,\n # c\n d = 2\n)\n }") == plain
    assert tree("rule linear,\n conv and\n x\n {\n weights = int4\n # c\n\n | int8\n a = b(c = 1, d = 2,) }") == plain


@pytest.mark.parametrize("text", ["", "\n", "\n\n# only a comment", "\ufeff", ";;;\n", "qpolicy 1"])
def test_empty_files_are_policies(text: str) -> None:
    assert tree(text).span.start == 0


def test_a_future_version_hides_all_other_errors() -> None:
    assert codes("# c\nqpolicy 2\n<<< >>>\n") == ["Q106"]
    assert codes("qpolicy 99999999999999999999999\n") == ["Q106"]
    assert codes("qpolicy 0\n") == ["Q106"]


def test_every_statement_gets_its_own_error() -> None:
    text = "rule linear { weights: int4 }\n" * 3 + "let x linear\nrule conv { a = 1, b 2, c = 3, d 4 }\nuse x\n"
    assert codes(text) == ["Q101"] * 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rule " + "(" * 10_000 + "linear" + ")" * 10_000 + " { keep }", ["Q105"]),
        ("rule " + "not " * 10_000 + "linear { keep }", ["Q105"]),
        ("rule x { a = " + "f(" * 10_000 + ")" * 10_000 + " }", ["Q105"]),
        ("rule " + "(" * 10_000, ["Q102"]),
        ("rule x" + "[" * 10_000, ["Q102"]),
        ("rule x { a = b" + "{" * 10_000, ["Q102", "Q102"]),
    ],
)
def test_deep_nesting(text: str, expected: list[str]) -> None:
    limit = sys.getrecursionlimit()
    assert codes(text) == expected
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize(
    "text",
    ["\n" * 2_000_000, "# x\n" * 300_000, " " * 2_000_000, ";" * 500_000, "a" * 2_000_000, "/" * 100_000, '"' * 50_000],
    ids=["newlines", "comments", "blanks", "semicolons", "word", "slashes", "quotes"],
)
def test_monotonous_files_take_linear_time(text: str) -> None:
    start = time.process_time()
    try:
        tree(text)
    except QccError as error:
        assert len(str(error)) < 100_000
    assert time.process_time() - start < 5


def calls(rules: int) -> int:
    """How many functions are called to read so many rules: what a busy machine does not change."""
    profile = cProfile.Profile()
    found = profile.runcall(tree, RULE * rules)
    assert len(found.statements) == rules
    return sum(one.callcount for one in profile.getstats())


@pytest.mark.slow
def test_work_grows_with_the_number_of_rules() -> None:
    assert calls(2_000) < 4.2 * calls(500)


@pytest.mark.slow
def test_ten_thousand_broken_rules() -> None:
    assert codes("rule linear { weights: int4 }\n" * 2_000) == ["Q101"] * 2_000


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "a.qpolicy"
    path.write_bytes(b"\xef\xbb\xbfqpolicy 1\r\nrule any { keep }\r\n")
    source = load_source(path)
    assert source.text == "qpolicy 1\nrule any { keep }\n"
    assert source.path == path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x08\x07\x12\x00model", "a binary file"),
        (b"rule \xff\xfe linear", "byte 0xff on line 1"),
        (b"\n\nrule \xe9 linear", "byte 0xe9 on line 3"),
        ("rule any { keep }".encode("utf-16"), "UTF-16"),
        (b"#" * (4 * 2**20 + 1), "larger than 4 MiB"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.qpolicy"
    path.write_bytes(data)
    with pytest.raises(QccError, match="Q108") as caught:
        load_source(path)
    assert message in str(caught.value)
    assert len(caught.value.diagnostics) == 1


def test_what_can_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bert.qpolicy").write_text("qpolicy 1\n")
    for name, message in [
        ("bret.qpolicy", "did you mean"),
        ("bert", "did you mean"),
        ("none/x.qpolicy", "no such file"),
        (".", "directory"),
        ("a\0b", "null"),
        ("x" * 280, "too long"),
    ]:
        with pytest.raises(QccError, match="Q107") as caught:
            load_source(tmp_path / name)
        assert message in str(caught.value)


def test_the_place_of_a_node_is_its_text() -> None:
    (rule,) = tree('  rule linear[name ~ "a"], conv { weights = int4 group {32,64} | int8 }  # c').statements
    assert rule.span.text == 'rule linear[name ~ "a"], conv { weights = int4 group {32,64} | int8 }'
