"""The HTML report: one file that needs no network, the same bytes for the same result.

Without its script, which sorts and filters tables, all of it is there. The page allows that script alone, by its
digest.

All markup is in the templates, but for that of drawings (`shapes`); here stands what they show. Whatever is put into a
template is text, unless it says that it is markup.
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from qcc.compiler.measure.time_model import ModelTimes, Race
from qcc.compiler.metrics.find import additive, judged, to_measure
from qcc.compiler.metrics.texts import ratio_text, share_text
from qcc.compiler.plan.text import action_text
from qcc.compiler.report.data import data_lines
from qcc.compiler.report.failures import losses, measured, suggestion
from qcc.compiler.report.page.charts import bytes_chart
from qcc.compiler.report.page.curve import curve_chart
from qcc.compiler.report.page.depth import depth_chart, group_size
from qcc.compiler.report.page.effort import effort_curve
from qcc.compiler.report.page.nodes import node_times
from qcc.compiler.report.page.picture import picture
from qcc.compiler.report.page.sensitivity import sensitivity
from qcc.compiler.report.page.spread import histograms
from qcc.compiler.report.result import LayerRow, Result, average_bits
from qcc.compiler.report.text import (
    MISLEADS,
    breakable,
    colour,
    cosine_text,
    file_names,
    milliseconds,
    power_text,
    size_text,
    spelled_out,
    sqnr_text,
    worst_first,
)
from qcc.compiler.report.times import ratio_words, verdict
from qcc.compiler.verify.outputs import BoundCheck
from qcc.ir.forms.find import forms
from qcc.passes.clean import Clean
from qcc.passes.encode import Encode

SECTIONS = {
    "bytes": "Where the bytes are",
    "depth": "Along the depth",
    "allocation": "Allocation",
    "sensitivity": "What each layer could have become",
    "outputs": "Outputs compared",
    "time": "Where the time goes",
    "layers": "Layers",
    "sparse": "What sparse layers keep",
    "spread": "How the numbers lie",
    "kept": "Kept as they were",
    "adapters": "Adapters",
    "rewrites": "Rewritten",
    "work": "What the compiler did",
    "load": "Load it",
    "terms": "Terms",
}
"""The headings, by the names of the templates."""
UNBROKEN = 24
_CODE = re.compile(r"`([^`\n]+)`")


def render_html(result: Result) -> str:
    """The report."""
    named = partial(file_names, result=result)
    page = _templates().overlay()
    page.filters = {**page.filters, "named": named}
    done = result.verification
    found = result.allocation
    tried = sensitivity(found.alternatives) if found else None
    holed = [(row, picture(row.holes), effort_curve(row.holes.curve)) for row in result.layers if row.holes]
    spreads, spent = histograms(result.layers), node_times(result.times.nodes) if result.times else None
    may_lack = {
        **{"adapters": result.adapters, "rewrites": result.rewrites, "sensitivity": tried},
        **{"sparse": holed, "spread": spreads, "time": spent},
    }
    absent = [key for key, rows in may_lack.items() if not rows]
    script = page.get_template("script.html").render()
    return page.get_template("report.html").render(
        result=result,
        script=script_digest(script),
        curve=curve_chart(result) if found and len(found.frontier) > 1 else "",
        tried=tried,
        holed=holed,
        spreads=spreads,
        spent=spent,
        sections=[(key, heading) for key, heading in SECTIONS.items() if key not in absent],
        tiles=list(_tiles(result)),
        lost=losses(done),
        rule=suggestion(result),
        bytes_chart=bytes_chart(result.layers, result.input_bytes, result.output_bytes),
        formats=list(_formats(result)),
        depth_chart=depth_chart(result.layers) if result.layers else "",
        group_size=group_size(len(result.layers)),
        metrics=to_measure(name for one in done.outputs for name in one.found.values),
        lost_in=additive()[result.allocation.metric] if result.allocation else None,
        worst_sqnr=min((one.sqnr for one in done.outputs), key=worst_first, default=math.nan),
        origin=named(re.split(r"[/\\]", done.origin)[-1]),
        misleads=MISLEADS,
        places=_places(result),
        kept=_kept(result),
        work=[(action_text(s.action), len(s.weights)) for s in result.plan.steps if not isinstance(s.action, Clean)],
        data_lines=data_lines(result.layers),
        forms=forms().values(),
    )


def script_digest(script: str) -> str:
    """What the page's policy of content says of its only script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@lru_cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("qcc.compiler.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=spelled_out,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "bound_value": _bound_value,
        "breakable": breakable,
        "coded": _coded,
        "colour": colour,
        "count": _count,
        "power": power_text,
        "quoted": repr,
        "ratio": ratio_text,
        "share": share_text,
        "size": size_text,
        "sqnr": sqnr_text,
    }
    return made


def _coded(text: str) -> Markup:
    """A text in which what stands between grave accents is code; what is short is never broken."""
    return Markup(_CODE.sub(_code, str(escape(spelled_out(text)))))


def _code(found: re.Match[str]) -> str:
    whole = ' class="whole"' if len(found[1]) <= UNBROKEN else ""
    return f"<code{whole}>{found[1]}</code>"


def _count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _bound_value(check: BoundCheck) -> str:
    """The value that a bound was held to."""
    if check.bound.metric not in judged():
        return measured(check)
    return judged()[check.bound.metric].text(check.value, check.bound.quantity.unit)


@dataclass(frozen=True)
class _Tile:
    """A large figure: what it is of, and what stands below it, the first words in a colour if they have a class."""

    label: str
    big: str
    words: str
    css: str = ""
    more: str = ""


def _tiles(result: Result) -> Iterator[_Tile]:
    before, after = result.input_bytes, result.output_bytes
    ratio = f"{before / after:.2f}× smaller, " if 0 < after < before else ""
    of = f"{ratio}{share_text(after / before)} of the original" if before else "the original is empty"
    yield _Tile("file size", f"{size_text(before)} → {size_text(after)}", of)
    weights = sum(row.shape[0] * row.shape[1] for row in result.layers)
    bits = f"{average_bits(result.layers) or math.nan:.2f}" if weights else "–"
    yield _Tile("average bits a weight", bits, f"over {weights:,} weights")
    encoded, layers = sum(bool(row.form) for row in result.layers), len(result.layers)
    yield _Tile("layers encoded", f"{encoded:,} of {layers:,}", f"{layers - encoded:,} kept as they were")
    if result.times is not None:
        yield from (_latency_tile(race, result.times) for race in result.times.races)
    for one in result.costs:
        before_text, after_text, share = one.texts
        yield _Tile(one.row, f"{before_text} → {after_text}", f"{share} of the original's; {one.note}")
    outputs = result.verification.kernel_outputs or result.verification.outputs
    if outputs:
        cosine = min(outputs, key=lambda one: worst_first(one.cosine))
        sqnr = min(outputs, key=lambda one: worst_first(one.sqnr))
        where = ", on generated data" if result.verification.generated else ""
        yield _Tile("worst output, cosine", cosine_text(cosine.cosine), cosine.output + where)
        yield _Tile("worst output, SQNR", sqnr_text(sqnr.sqnr), sqnr.output + where)


def _latency_tile(race: Race, times: ModelTimes) -> _Tile:
    change = f"{milliseconds(race.median_s(0))} → {milliseconds(race.median_s(times.entrant))}"
    css = {"slower": "bad", "unsure": "bad", "faster": "good"}.get(verdict(race.ratio(times.entrant)), "")
    how = "with kernels" if times.with_kernels else "in plain ONNX Runtime"
    return _Tile(f"latency, {race.threads_text}", change, ratio_words(race, times), css, f", {how}; one sample")


def _formats(result: Result) -> Iterator[dict[str, Any]]:
    """What each format holds: the legend of the charts; then all else that the files hold, if both are told whole."""
    found: dict[tuple[bool, str, str], list[LayerRow]] = {}
    for row in sorted(result.layers, key=lambda row: (not row.form, row.format, row.form)):
        found.setdefault((not row.form, row.format, row.form), []).append(row)
    for rows in found.values():
        yield _format_row(rows)
    before = result.input_bytes - sum(row.original_bytes for row in result.layers)
    after = result.output_bytes - sum(row.size_bytes for row in result.layers)
    if min(before, after) >= 0:
        rest = {"css": "rest", "name": "graph, biases, small constants", "before": before, "after": after}
        yield rest | dict.fromkeys(("form", "layers", "weights", "bits"), "")


def _format_row(rows: list[LayerRow]) -> dict[str, Any]:
    first = rows[0]
    return {
        "css": colour(first),
        "name": first.format + ("" if first.form else ", kept"),
        "form": first.form or "–",
        "layers": f"{len(rows):,}",
        "weights": f"{sum(row.shape[0] * row.shape[1] for row in rows):,}",
        "before": sum(row.original_bytes for row in rows),
        "after": sum(row.size_bytes for row in rows),
        "bits": f"{average_bits(rows) or 0:.2f}",
    }


def _places(result: Result) -> dict[str, str]:
    """Where the policy asked for each encoded weight."""
    steps = [step for step in result.plan.steps if isinstance(step.action, Encode)]
    return {name: place for step in steps for name, place in zip(step.weights, step.sources, strict=True)}


def _kept(result: Result) -> dict[str, list[str]]:
    """The weights that stay as they were, by the reason."""
    found: dict[str, list[str]] = {}
    for one in result.plan.kept:
        found.setdefault(file_names(one.reason, result), []).append(one.weight)
    return found
