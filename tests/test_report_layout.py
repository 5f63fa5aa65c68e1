"""The HTML report in a browser: at five widths nothing is cut, nothing overlaps, no word is broken.

Skipped where no Chromium is installed. Pages are laid out in frames of one page that measures them from outside, so
what is measured is what is shipped, with its own script and its policy of content.
"""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest

from qcc.compiler.measure.time_model import ModelTimes, Race
from qcc.compiler.report.page.html import render_html
from qcc.compiler.report.page.nodes import node_times
from qcc.compiler.report.page.spread import MOST_ROWS, drawing, histograms
from qcc.compiler.report.result import Result
from qcc.compiler.runtime.profile import Node, Tensor
from qcc.compiler.runtime.roofline import NodeTime
from qcc.passes.contract.spread import BINS, Spread
from tests.test_report_html import CASES, chosen_among, layer, many, read, result

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = 400, 560, 768, 1200, 1600
LONGEST = 24  # letters of a word that must stay whole; longer names may be broken anywhere
MEASURE = """
const found = [];
function words(doc, width) {
  const walker = doc.createTreeWalker(doc.body, NodeFilter.SHOW_TEXT), range = doc.createRange();
  for (let node; (node = walker.nextNode());) {
    if (!node.parentElement.getClientRects().length || node.parentElement.closest("svg, script, style")) continue;
    for (const part of node.data.matchAll(/[A-Za-z]+/g)) {
      if (part[0].length > LONGEST) continue;
      range.setStart(node, part.index);
      range.setEnd(node, part.index + part[0].length);
      const boxes = [...range.getClientRects()];
      if (boxes.some((box) => Math.abs(box.top - boxes[0].top) > 4)) found.push([width, "broken", part[0]]);
      if (boxes.some((box) => box.right > width + 1)) {
        const inside = node.parentElement.closest(".scroll, .chart, pre");
        if (!inside) found.push([width, "cut", part[0]]);
      }
    }
  }
}
function drawn(doc, width) {
  for (const text of doc.querySelectorAll("svg text")) {
    const box = text.getBoundingClientRect();
    if (!box.width) continue;
    const cut = box.left < -1 || (box.right > width + 1 && !text.closest(".chart"));
    if (cut) found.push([width, "cut", text.textContent]);
    const under = text.closest("figure")?.querySelector("figcaption")?.getBoundingClientRect();
    if (under && box.bottom > under.top + 4) found.push([width, "over the caption", text.textContent]);
  }
}
window.addEventListener("load", () => {  // when all frames have theirs
  for (const frame of document.querySelectorAll("iframe")) {
    const doc = frame.contentDocument, width = frame.clientWidth;
    if (!doc.querySelector("h1")) found.push([width, "empty", ""]);
    if (doc.documentElement.scrollWidth > width) found.push([width, "wider", String(doc.documentElement.scrollWidth)]);
    words(doc, width);
    drawn(doc, width);
  }
  document.body.dataset.found = JSON.stringify(found);
});
"""


def timed(found: Result) -> Result:
    """The result with times of nodes, whose names come from the model."""
    shape = (Tensor((1, 64), 256.0),)
    named = [("model.layers.0.mlp.gate_proj.weight_and_a_name_of_great_length/MatMul", "MatMulNBits", False)]
    named += [(f"node_{at}", "LinearInt4Group32Signed", at % 2 == 0) for at in range(80)]
    nodes = tuple(
        NodeTime(Node(name, op, ours, 1e-3 / (1 + at), shape, shape), 1e-4, "bytes")
        for at, (name, op, ours) in enumerate(named)
    )
    race = Race(1, np.full((2, 5), 1e-3), (0.1, 0.1))
    return replace(found, times=ModelTimes((race,), False, (0.1, 0.1), None, nodes))


def spread(found: Result) -> Result:
    """The result with histograms."""
    matrix = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    one = Spread.of(matrix, np.round(matrix * 2) / 2)
    return replace(found, layers=tuple(replace(row, spread=one) for row in found.layers))


PAGES = {"many": CASES["many"], **CASES, "chosen": chosen_among(), "timed": timed(many(20)), "spread": spread(many(80))}


@pytest.mark.sampled
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("case", PAGES)
def test_nothing_is_cut_and_no_word_is_broken_at_five_widths(case: str, tmp_path: Path) -> None:
    page = escape(render_html(PAGES[case]), quote=True)
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe>' for width in WIDTHS
    )
    script = MEASURE.replace("LONGEST", str(LONGEST))
    outer = tmp_path / "frames.html"
    outer.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body>{frames}<script>{script}</script></body>', "utf-8")
    assert BROWSER is not None
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=20000",
        f"--user-data-dir={tmp_path / 'me'}",
    )
    done = subprocess.run(
        [BROWSER, *options, "--dump-dom", outer.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    told = re.search(r'data-found="([^"]*)"', done.stdout)
    assert told is not None, "the page was not measured"
    assert json.loads(unescape(told[1])) == []


def test_histograms_are_of_the_numbers_before_and_after() -> None:
    matrix = np.linspace(-1, 1, 4096, dtype=np.float32).reshape(64, 64)
    found = Spread.of(matrix, np.sign(matrix))
    assert found is not None and len(found.before) == len(found.after) == BINS
    assert sum(found.before) == pytest.approx(1) and found.after[0] == found.after[-1] == pytest.approx(0.5)
    assert max(found.before) == pytest.approx(1 / BINS, rel=0.05) and found.limit == pytest.approx(1, rel=2e-3)
    assert str(drawing(found)).count("<path") == 2


def test_one_outlier_hides_no_histogram_and_large_weights_are_sampled() -> None:
    matrix = np.random.default_rng(1).standard_normal((2048, 1024)).astype(np.float32)
    matrix[0, 0] = 1e6
    found = Spread.of(matrix, matrix)
    assert found is not None and found.limit < 4 and found.before == found.after


@pytest.mark.parametrize(
    "matrix", [np.zeros((4, 4)), np.zeros((0, 4)), np.full((2, 2), np.inf), np.full((2, 2), np.nan)]
)
def test_what_has_no_spread_has_no_histogram_reject(matrix: np.ndarray) -> None:
    assert Spread.of(matrix, matrix) is None


def test_weights_that_changed_most_are_drawn_first_and_the_rest_is_counted() -> None:
    found = histograms(spread(many(80)).layers)
    assert found is not None and len(found.rows) == MOST_ROWS and found.left == 80 - MOST_ROWS
    errors = [row.error for row, _ in found.rows]
    assert errors == sorted(errors, reverse=True)
    assert histograms(many(3).layers) is None and "How the numbers lie" not in read(render_html(many(3))).text


def test_times_of_nodes_stand_beside_their_floors() -> None:
    times = timed(result(layer(0))).times
    assert times is not None
    found = node_times(times.nodes)
    assert found is not None and found.known and found.rows[0].seconds >= found.rows[-1].seconds
    assert (
        sum(row.seconds for row in found.rows)
        <= found.seconds
        == pytest.approx(sum(n.node.seconds for n in times.nodes))
    )
    text = read(render_html(timed(result(layer(0))))).text
    assert (
        "Where the time goes" in text
        and "LinearInt4Group32Signed, ours" in text
        and "qcc targets --measure" not in text
    )
    assert node_times(()) is None


def test_without_ceilings_no_floor_is_told() -> None:
    shape = (Tensor((1, 4), 16.0),)
    found = node_times([NodeTime(Node("a", "Relu", False, 1e-6, shape, shape), float("nan"), "")])
    assert found is not None and not found.known and found.rows[0].over_text == "–"
