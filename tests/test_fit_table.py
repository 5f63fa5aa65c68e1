"""Tables fit a terminal: names are cut from the left, what matters least goes, and nothing is wider than the screen."""

import pytest

from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table, cut_left, fitted, plain
from qcc.compiler.report.layer_tables import footnotes, layer_table
from qcc.compiler.report.result import LayerRow
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.excerpt import cells
from qcc.dsl.diagnostics.render import render

TABLE = Table(
    (Column("layer", cut=True), Column("kind", spare=2), Column("form", spare=1), Column("bytes", right=True)),
    (
        ("encoder.layer.{0..5}.attention.output.dense", "linear", "decoded", "1,234,567"),
        ("pooler", "linear", "fused", "12"),
    ),
)


def test_a_table_that_fits_is_plain() -> None:
    assert "".join(f"{line}\n" for line in fitted(TABLE, 200)) == plain(TABLE)


def test_what_is_spare_goes_before_names_are_cut_short() -> None:
    for width in range(40, 90):
        lines = fitted(TABLE, width)
        assert max(map(cells, lines)) <= width and len(lines) == 3
        assert lines[1].startswith(("encoder.layer", "...")) and "1,234,567" in lines[1]
    assert "kind" not in fitted(TABLE, 50)[0] and "form" in fitted(TABLE, 50)[0]
    assert fitted(TABLE, 50)[1].split()[0].endswith("attention.output.dense")
    assert "form" not in fitted(TABLE, 40)[0]


def test_what_cannot_be_cut_goes_on_below() -> None:
    table = Table((Column("format"),), (("int8 channel asym scale fp32 and more words",),))
    lines = fitted(table, 30)
    assert max(map(cells, lines)) <= 30 and " ".join(" ".join(lines).split()) == f"format {table.rows[0][0]}"


def test_lists_and_paragraphs_keep_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere they are as they were written."""
    rows, text = [("compile", "make a model smaller, " * 6 + "end"), ("fmt", "lay policies out")], "word " * 30
    for wide, narrow in ((terminal.pairs(rows, "  "), 2), (terminal.paragraphs(text.strip()), 1)):
        assert max(map(cells, wide.splitlines())) > 80 and len(wide.splitlines()) == narrow
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(cells, terminal.paragraphs(text.strip()).splitlines())) <= 60
    lines = terminal.pairs(rows, "  ").splitlines()
    assert max(map(cells, lines)) <= 60 and lines[-1].startswith("  fmt") and lines[1].startswith(" " * 11)
    lines = terminal.paragraphs(f"Args:\n    name: {text}\n    other: short").splitlines()
    assert max(map(cells, lines)) <= 60 and lines[-1] == "    other: short"
    assert {len(line) - len(line.lstrip()) for line in lines[2:-1]} == {8}
    fenced = f"```\n{text}\n\n{text}\n```"
    assert terminal.paragraphs(fenced) == fenced


def test_examples_keep_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command does stands below it in all lines, if there is no room in one."""
    text = "examples:\n  qcc compile model.onnx        " + "word " * 11 + "\n  qcc fmt  lays out\n"
    assert terminal.examples(text) == text
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "70")
    wanted = ["examples:", "  qcc compile model.onnx", " " * 8 + "word " * 11, "  qcc fmt", " " * 8 + "lays out"]
    assert terminal.examples(text).splitlines() == wanted


def test_sentences_of_diagnostics_keep_to_a_terminal() -> None:
    """At a terminal; elsewhere a message stays one line, which tools read."""
    one = Diagnostic("Q202", "word " * 30 + "end", help="more " * 30 + "end")
    assert max(map(cells, render([one]).splitlines())) > 150
    lines = render([one], width=60, fill=True).splitlines()
    assert max(map(cells, lines)) <= 60 and lines[1].startswith(" " * 13 + "word") and lines[-1].startswith(" " * 9)
    assert " ".join(" ".join(lines).split()) == " ".join(render([one]).split())


def test_names_are_cut_from_the_left() -> None:
    assert cut_left("a.b.c", 5) == "a.b.c" and cut_left("attention.output.dense", 12) == "...put.dense"
    assert cells(cut_left("字" * 20, 9)) <= 9


def row(name: str, error: float, format: str = "int4 group 32") -> LayerRow:
    return LayerRow(name, ("linear",), (8, 8), format, "fused", 100, 256, 4.5, error, error / 10, "")


def test_repeated_layers_are_one_row() -> None:
    layers = [row(f"layer.{at}.q", 0.01 * (at + 1)) for at in range(6)] + [row("head", 0.5, "int8 channel")]
    table = layer_table(layers)
    assert [one[0] for one in table.rows] == ["layer.{0..5}.q", "head"]
    assert table.rows[0][5:] == ("600", "4.50", "12.2 dB", "0.6%")  # together; the worst: 10 log10(1 / 0.06)
    assert len(layer_table(layers, alone=True).rows) == 7


def test_layers_of_other_formats_are_rows_of_their_own() -> None:
    layers = [row("layer.0.q", 0.01), row("layer.1.q", 0.01, "int8 channel"), row("layer.2.q", 0.01)]
    assert [one[0] for one in layer_table(layers).rows] == ["layer.{0,2}.q", "layer.1.q"]


def test_long_formats_are_footnotes() -> None:
    long = "bands(int4 channel asym scale fp16, int1 channel sym scale fp16, share = 25%)"
    layers = [
        row("a", 0.01, long),
        row("b", 0.01, "int8 channel sym scale fp16"),
        row("c", 0.01, f"stack({long}, int1)"),
    ]
    assert [one[3] for one in layer_table(layers).rows] == ["bands [1]", "int8 channel", "stack [2]"]
    short = "bands(int4 channel asym, int1 channel, share = 25%)"
    assert footnotes(layers) == [f"[1] {short}", f"[2] stack({short}, int1)"]
