"""How diagnostics look: for people, for tools, for GitHub."""

import json

import pytest

from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.render import render
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.diagnostics.spelling import did_you_mean, nearest


def spanned(text: str, marked: str, help: str | None = None) -> Diagnostic:
    start = text.index(marked)
    return Diagnostic("Q202", "unknown option", Span(Source("a.qpolicy", text), start, start + len(marked)), help)


def carets(rendered: str) -> tuple[str, str]:
    lines = rendered.splitlines()
    return lines[3].partition("| ")[2], lines[4].partition("| ")[2]


def test_text_as_the_style_says() -> None:
    text = "\n" * 13 + "    permute = magnitude(grouping = 32)\n"
    start = text.index("grouping")
    span = Span(Source("bert-edge.qpolicy", text), start, start + 8)
    one = Diagnostic("Q202", "unknown option of `permute`: `grouping`", span, "did you mean `group`?")
    assert render([one], width=80) == (
        "error[Q202]: unknown option of `permute`: `grouping`\n"
        "  --> bert-edge.qpolicy:14:25\n"
        "   |\n"
        "14 |     permute = magnitude(grouping = 32)\n"
        "   |                         ^^^^^^^^\n"
        "   = help: did you mean `group`?\n"
    )


def test_tabs_and_wide_characters_keep_the_caret_aligned() -> None:
    shown, marks = carets(render([spanned("\tx\t日本 here", "here")], width=80))
    assert shown == "    x   日本 here"
    assert marks == " " * 13 + "^^^^"
    assert carets(render([spanned("日本 here", "日本")], width=80))[1] == "^^^^"
    # A letter and its accent take one column.
    assert carets(render([spanned("e\u0301 here", "here")], width=80))[1] == "  ^^^^"


def test_control_characters_are_spelled_out() -> None:
    rendered = render([spanned("a\x1b[31m\x07\u202e here", "here")], width=80)
    assert "\x1b" not in rendered
    assert carets(rendered)[0] == "a\\x1b[31m\\x07\\u{202e} here"
    assert carets(rendered)[1].index("^") == carets(rendered)[0].index("here")
    assert "\x1b" not in render([Diagnostic("Q101", "found `\x1b`", help="\x1b[0m")], width=80)


@pytest.mark.parametrize("width", [40, 60, 100])
def test_long_lines_are_windowed_round_the_caret(width: int) -> None:
    text = "a" * 500 + " here " + "b" * 5000
    rendered = render([spanned(text, "here")], width=width)
    assert all(len(line) <= width for line in rendered.splitlines())
    shown, marks = carets(rendered)
    assert shown.startswith("...") and shown.endswith("...")
    assert shown[marks.index("^") : marks.index("^") + 4] == "here"


def test_megabytes_on_one_line() -> None:
    text = "x" * 2_000_000
    one = Diagnostic("Q101", "m" * 10_000, Span(Source("a", text), 1_000_000, 2_000_000))
    assert len(render([one], width=100)) < 1000


def test_ends_of_files_and_lines() -> None:
    source = Source("a", "rule\n")
    assert "^" in render([Diagnostic("Q101", "m", Span(source, 4, 5))], width=80)
    assert "--> a:2:1" in render([Diagnostic("Q101", "m", Span(source, 5, 6))], width=80)
    assert "--> e:1:1" in render([Diagnostic("Q101", "m", Span(Source("e", ""), 0, 1))], width=80)


def test_a_span_of_many_lines_marks_the_first() -> None:
    assert carets(render([spanned("a b\nc d", "b\nc")], width=80)) == ("a b", "  ^")


def test_color_only_when_asked() -> None:
    one = spanned("a b", "b", help="h")
    assert "\x1b[" in render([one], color=True, width=80)
    assert "\x1b[" not in render([one], width=80)


def test_no_more_than_fifty_are_printed() -> None:
    rendered = render([Diagnostic("Q101", f"number {i}") for i in range(53)], width=80)
    assert rendered.count("error[") == 50
    assert rendered.endswith("and 3 more\n")


def test_json() -> None:
    (entry,) = json.loads(render([spanned("a\nb here", "here", help="h")], format="json"))
    assert entry == {
        "code": "Q202",
        "severity": "error",
        "message": "unknown option",
        "help": "h",
        "note": None,
        "file": "a.qpolicy",
        "line": 2,
        "column": 3,
        "end_line": 2,
        "end_column": 7,
    }


def test_github_escapes() -> None:
    source = Source("a,b:c%.qpolicy", "x here")
    one = Diagnostic("Q101", "50% is\nwrong", Span(source, 2, 6), help="do, this: now")
    assert render([one], format="github") == (
        "::error file=a%2Cb%3Ac%25.qpolicy,line=1,col=3,endColumn=7::Q101: 50%25 is%0Awrong%0Ahelp: do, this: now\n"
    )
    assert render([Diagnostic("Q107", "no file")], format="github") == "::error::Q107: no file\n"


def test_errors_are_raised_together_in_order_and_once() -> None:
    report = Diagnostics()
    source = Source("a", "one\ntwo\n")
    report.error("Q102", "second", Span(source, 4, 5))
    report.error("Q101", "first", Span(source, 0, 1))
    report.error("Q101", "first", Span(source, 0, 1))
    report.warning("Q240", "unused", Span(source, 2, 3))
    with pytest.raises(QccError) as caught:
        report.raise_if_errors()
    assert [one.message for one in caught.value.diagnostics] == ["first", "unused", "second"]
    assert str(caught.value).startswith("error[Q101]: first\n --> a:1:1\n")
    assert [one.code for one in report.warnings] == ["Q240"]


def test_warnings_alone_raise_nothing() -> None:
    report = Diagnostics()
    report.warning("Q240", "unused")
    report.raise_if_errors()


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("grouping", "group"),
        ("gruop", "group"),
        ("Group", "group"),
        ("chanel", "channel"),
        ("ext", "external_data"),
        ("banana", None),
        ("x", None),
        ("", None),
    ],
)
def test_nearest(word: str, near: str | None) -> None:
    assert nearest(word, iter(["group", "channel", "external_data"])) == near


def test_long_lists_are_cut() -> None:
    help = did_you_mean("zzzz", [f"name{i}" for i in range(1000)])
    assert help is not None and len(help) < 200
