"""The HTML report: whole, self-contained, the same bytes for the same result, whatever the names hold."""

import base64
import hashlib
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from qcc.compiler.build.rewrite_row import RewriteRow
from qcc.compiler.metrics.texts import share_text
from qcc.compiler.plan.plan import Kept, Plan, Step
from qcc.compiler.report.page import html
from qcc.compiler.report.page.html import render_html
from qcc.compiler.report.result import Allocation, Alternative, LayerRow, Result
from qcc.compiler.report.text import cosine_text, power_text, size_text, sqnr_text
from qcc.compiler.verify.outputs import BoundCheck, OutputCheck, Verification
from qcc.dsl.diagnostics.diagnostic import Diagnostic, Severity
from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.policy.policy import Bound, Quantity
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import Block
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.find import forms
from qcc.ir.forms.fused import FUSED
from qcc.passes.clean import Clean
from qcc.passes.contract.contract import Edit
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest
from tests.output_checks import output_check

FOLDER = Path("/home/someone/models")
HOSTILE = "<script>alert('1')</script>\"&amp;' \x00\u202e\ud800 ]]> $body ${title} größe/重み"
PLACE = Span(Source("/home/someone/p.qpolicy", "rule any { weights = int4 }"), 5, 8)
VOID = {"meta", "br", "wbr"}


def layer(at: int, bits: int | None = 4, name: str | None = None, loss: float | None = None) -> LayerRow:
    """Layer number ``at``; without bits it is kept."""
    shape, original = (64, 32 + at % 7 * 32), 4 * 64 * (32 + at % 7 * 32)
    name = f"encoder.layer.{at}.attention.output.dense" if name is None else name
    if bits is None:
        place = "keep, /home/someone/p.qpolicy:1:6"
        return LayerRow(name, ("conv",), shape, "float32", "", original, original, 32.0, 0.0, None, place)
    form, reason = list(forms())[at % 3], "the runtime has no compressed kernel for this layer"
    text = f"int{bits} group 32 sym scale fp16"
    size = original * bits // 32 + 400
    return LayerRow(
        name, ("linear",), shape, text, form, size, original, 8 * size / (shape[0] * shape[1]), 4.0**-bits, loss, reason
    )


def result(
    *layers: LayerRow,
    outputs: tuple[OutputCheck, ...] = (output_check("logits", 0.9987, 25.2, 0.043),),
    value: float = 0.9987,
    allocation: Allocation | None = None,
    warnings: tuple[Diagnostic, ...] = (),
    edits: tuple[str, ...] = (),
    seconds: float = 1.0,
) -> Result:
    """A result of these layers."""
    names = tuple(row.name for row in layers if row.form)
    encode = Encode(Blocked(IntGrid(4), Block(1, 32)), Nearest(), FUSED)
    step = Step(encode, names, ("/home/someone/p.qpolicy:1:22",) * len(names))
    kept = tuple(Kept(row.name, row.reason) for row in layers if not row.form)
    bound = BoundCheck(Bound("cosine", None, ">=", Quantity(0.99), PLACE), value, value >= 0.99)
    return Result(
        source=FOLDER / "net.onnx",
        output=FOLDER / "net.qcc.onnx",
        lock=FOLDER / "net.qcc.lock",
        report=FOLDER / "net.qcc.html",
        written=value >= 0.99,
        input_bytes=sum(row.original_bytes for row in layers) + 900,
        output_bytes=sum(row.size_bytes for row in layers) + 800,
        layers=layers,
        plan=Plan((Step(Clean()), step), kept),
        edits=edits,
        allocation=allocation,
        verification=Verification(outputs, (bound,), 32, "/home/someone/calibration.npz"),
        warnings=warnings,
        seconds={"encode": seconds},
    )


def many(count: int) -> Result:
    """A result of many layers of all widths."""
    widths = (2, 3, 4, 8, 5, 6, 7, None)
    return result(*(layer(at, widths[at // 3 % 8], loss=1e-5 * (1 + at % 50)) for at in range(count)))


def hostile() -> Result:
    """A result whose every name attacks the page."""
    warning = Diagnostic("Q430", f"`{FOLDER / 'net.onnx'}` {HOSTILE}", PLACE, HOSTILE, HOSTILE, Severity.WARNING)
    edits = (Edit(HOSTILE, HOSTILE, layers=(HOSTILE, "a")), Edit(HOSTILE, HOSTILE, refused=True))
    found = result(
        layer(0, 4, HOSTILE),
        layer(1, None, HOSTILE * 20),
        outputs=(output_check(HOSTILE, 0.995, 20.0, 0.1),),
        allocation=Allocation(HOSTILE, (HOSTILE,), 2, 8, 2, 0.001, 0.01),
        warnings=(warning,),
        edits=(HOSTILE,),
    )
    return replace(found, rewrites=(RewriteRow(HOSTILE, edits, 1e-6, 0.5, 1e-4), RewriteRow("clean", ())))


def edges() -> Result:
    """A result of the values that formulas trip over."""
    empty = LayerRow("empty", (), (0, 0), "float32", "", 0, 0, 0.0, 0.0, None, "")
    exact = LayerRow("exact", ("linear",), (4, 4), "nf4 tensor", "decoded", 0, 64, 0.0, 0.0, 0.0, "")
    lost = LayerRow(
        "lost", ("linear",), (4, 4), "int2 tensor sym scale fp16", "decoded", 9, 64, 4.5, math.inf, math.inf, ""
    )
    nothing = LayerRow(
        "nan", ("linear",), (4, 4), "int2 tensor sym scale fp16", "decoded", 9, 64, 4.5, math.nan, math.nan, ""
    )
    checks = (
        output_check("same", 1.0, math.inf, 0.0),
        output_check("whole", 1.0, math.inf, 0.0, 0.0),
        output_check("broken", -1.0, -math.inf, math.inf),
        output_check("nan", math.nan, math.nan, math.nan),
    )
    return result(empty, exact, lost, nothing, outputs=checks, allocation=Allocation("size", (), 0, 0, 0, 0.0, 0.0))


CASES = {
    "none": result(),
    "one": result(layer(0)),
    "failed": result(layer(0), value=0.5),
    "few": many(20),
    "many": many(300),
    "hostile": hostile(),
    "edges": edges(),
    "no outputs": result(layer(0), layer(1, None), outputs=()),
}


class Balance(HTMLParser):
    """Checks that elements nest, as a browser reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Balance:
    reader = Balance()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


@pytest.mark.sampled
@pytest.mark.parametrize("case", CASES)
def test_the_page_is_well_formed_as_html_and_as_xml(case: str) -> None:
    page = render_html(CASES[case])
    page.encode("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert read(page).seen.isdisjoint({"link", "img", "iframe", "object"})
    assert page.count("<script") == 1
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    assert not re.search(r"\b(nan|inf)\b", "".join(root.find("body").itertext()).replace("nan,", "")) or case == "edges"  # type: ignore[union-attr]
    for drawing in root.iter("svg"):
        numbers = [
            value for shape in drawing.iter() for key, value in shape.attrib.items() if key in {"x", "y", "cy", "d"}
        ]
        assert numbers and not any(re.search("nan|inf|e", value) for value in numbers)


@pytest.mark.sampled
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_fetched_and_no_path_of_the_machine_is_told(case: str) -> None:
    page = render_html(CASES[case])
    assert not re.search(
        r"https?:|//|url\(|@import|\bsrc=|\bon\w+=", page.split("</style>")[0] + re.sub(r">[^<]*<", "><", page)
    )
    assert "/home/" not in page and "someone" not in page
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', page))
    anchors = set(re.findall(r'href="#([^"]*)"', page))
    assert anchors == set(re.findall(r'<section id="([^"]*)"', page))


def test_names_are_text() -> None:
    page = render_html(hostile())
    assert page.count("<script") == 1 and "\x00" not in page and "\u202e" not in page
    text = read(page).text
    assert "<script>alert('1')</script>\"&amp;' \\x00\\u{202e}\\u{d800} ]]> $body ${title} größe/重み" in text


def test_the_page_allows_its_own_script_alone() -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", render_html(many(3)), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in render_html(many(3))
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML", script)


def chosen_among() -> Result:
    """Two layers that had three formats each, and what the file could have been."""
    found = [
        Alternative(name, text, size, loss, text.startswith("int4"))
        for name, worst in (("a", 0.2), ("b", 0.01))
        for text, size, loss in (("int3", 30.0, worst), ("int4", 40.0, worst / 4), ("int8 channel", 80.0, 0.0))
    ]
    curve = ((960.0, 0.21), (970.0, 0.06), (1060.0, 0.0))
    allocation = Allocation("output_error", ("size <= 50%",), 2, 6, 6, 0.0, 0.0525, frontier=curve)
    return result(layer(0, name="a"), layer(1, name="b"), allocation=replace(allocation, alternatives=tuple(found)))


def test_quality_against_size_and_what_layers_could_have_become() -> None:
    page = render_html(chosen_among())
    read(page)
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    charts = [one for one in root.iter("svg") if "Least loss" in one.get("aria-label", "")]
    assert [sum(one.get("class") == css for one in charts[0].iter()) for css in ("corner", "here")] == [3, 1]
    table = next(one for one in root.iter("div") if one.get("class") == "heat")
    rows = ["".join(row.itertext()).split() for row in table.iter("tr")]
    assert [row[0] for row in rows] == ["layerint3int4int8", "a0.20.050", "b0.010.00250"] or len(rows) == 3
    assert [one.get("class") for one in table.iter("td")][:3] == ["h4", "h4 chosen", None]


def test_nothing_is_drawn_of_what_was_not_measured_reject() -> None:
    page = render_html(many(4))
    assert "Least loss" not in page and 'class="heat"' not in page.split("</style>")[1]


def test_no_template_says_that_text_is_markup() -> None:
    for path in Path(html.__file__).with_name("templates").iterdir():
        assert not re.search(r"\|\s*safe|autoescape|\bMarkup\b", path.read_text(encoding="utf-8")), path.name


def test_the_same_result_gives_the_same_bytes_whatever_time_it_took() -> None:
    slow, fast = result(layer(0), seconds=9.0), result(layer(0), seconds=0.1)
    assert render_html(slow) == render_html(fast)


def test_a_large_model_stays_small_enough_to_mail() -> None:
    assert len(render_html(many(300)).encode()) < 210_000


def test_charts_of_a_thousand_layers_are_grouped_and_the_table_is_whole() -> None:
    page = render_html(many(1000))
    assert "1,000 layers in groups of 13 neighbours" in page
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    table = next(one for one in root.iter("div") if one.get("class") == "layers")
    assert len(list(table.iter("tr"))) == 1001
    assert all(len(list(drawing.iter())) < 1500 for drawing in root.iter("svg"))


def test_the_headline_says_what_was_gained_and_whether_it_holds() -> None:
    text = read(render_html(many(24))).text
    assert "net.onnx → net.qcc.onnx" in text
    assert "verified: 1 bound met" in text and "cosine >= 0.99" in text and "0.998700" in text
    assert "× smaller" in text
    assert "p.qpolicy:1:22" in text and "keep, p.qpolicy:1:6" in text
    assert "InferenceSession('net.qcc.onnx')" in text


def test_a_failed_verification_is_said_and_nothing_is_offered_to_load() -> None:
    text = read(render_html(result(layer(0), value=0.5))).text
    assert "verification failed, no file was written" in text and "✗ fail" in text
    assert "InferenceSession" not in text


def test_the_allocation_tells_measured_from_scaled() -> None:
    found = Allocation("output_error", ("size <= 10%",), 2, 12, 3, 0.0, 1e-4)
    text = read(render_html(result(layer(0, loss=4e-5), layer(1, loss=6e-5), allocation=found))).text
    assert "3 measured at the output, 9 scaled" in text
    assert "proven, no other choice is better" in text
    assert "40.0 dB (noise over signal 0.0001)" in text


def test_losses_that_were_not_measured_have_no_chart() -> None:
    page = render_html(result(layer(0), layer(1)))
    assert "loss at the output (noise over signal)" not in page
    assert "was not measured" in page


def test_a_result_shows_itself_in_a_line_and_in_a_notebook() -> None:
    found = many(1000)
    assert len(repr(found)) < 300 and "877 of 1,000 encoded" in repr(found) and "passed, 1 bound" in repr(found)
    named = replace(found, output=Path("<script>.onnx"))
    assert "&lt;script&gt;.onnx" in named._repr_html_() and "<script" not in named._repr_html_()
    assert "failed" in repr(result(layer(0), value=0.5))


def test_every_form_is_explained() -> None:
    text = read(render_html(result(layer(0)))).text
    assert all(f"form {form.name}{form.explains}" in text for form in forms().values())


def test_quantities_are_spelled_in_few_digits() -> None:
    assert [size_text(size) for size in (0, 999, 1000, 95_853, 999_600, 18_695_296, 2e9)] == [
        "0 B", "999 B", "1.00 kB", "95.9 kB", "1.00 MB", "18.7 MB", "2.00 GB",
    ]  # fmt: skip
    assert [power_text(ratio) for ratio in (0.0, 1e-4, 10.0, math.inf)] == ["exact", "40.0 dB", "−10.0 dB", "−∞ dB"]
    assert [sqnr_text(value) for value in (math.inf, -math.inf, -3.0)] == ["∞ dB, identical", "−∞ dB", "−3.0 dB"]
    assert [cosine_text(value) for value in (1.0, 1 - 1e-9, 0.5)] == ["1", "> 0.999999", "0.500000"]
    assert [share_text(value) for value in (0.0, 0.0123, 1.0, 12.0, math.inf)] == [
        "0 %",
        "1.23 %",
        "100 %",
        "1200 %",
        "∞ %",
    ]


def test_what_is_typed_is_code_and_stays_whole() -> None:
    page = render_html(replace(result(), notes=("give `--data FILE.npz`", "`<b>` is `" + "long." * 9 + "`")))
    assert 'give <code class="whole">--data FILE.npz</code>' in page
    assert '<code class="whole">&lt;b&gt;</code> is <code>long.' in page and "<b>` is" not in page
