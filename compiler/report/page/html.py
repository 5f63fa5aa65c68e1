"""The HTML report: one file that needs no network and no script, the same bytes for the same result."""

import math
import re
from importlib.resources import files
from string import Template

from qcc.compiler.measure.time_model import ModelTimes, Race
from qcc.compiler.metrics.find import additive
from qcc.compiler.metrics.texts import ratio_text, share_text
from qcc.compiler.plan.text import action_text
from qcc.compiler.report.data import data_lines
from qcc.compiler.report.failures import losses, suggestion
from qcc.compiler.report.page import tables
from qcc.compiler.report.page.charts import bytes_chart
from qcc.compiler.report.page.depth import depth_chart, group_size
from qcc.compiler.report.page.rewrites import rewrites_section
from qcc.compiler.report.result import Allocation, Result, average_bits
from qcc.compiler.report.text import (
    MISLEADS,
    cosine_text,
    escaped,
    file_names,
    milliseconds,
    power_text,
    size_text,
    sqnr_text,
    worst_first,
)
from qcc.compiler.report.times import ratio_words, verdict
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.ir.forms.find import forms
from qcc.passes.clean import Clean

TERMS = {
    "bits a weight": "all that a layer takes in the file (codes, scales, zero points, the ops around them), shared out "
    "over its weights.",
    "signal to noise (SQNR)": "the original's power over the error's power, in decibels: 20 dB is an error of 10 %, "
    "40 dB of 1 %.",
    "output loss": "the error's power over the signal's at the model's output when this layer alone is encoded; losses "
    "of layers roughly add up.",
    "proven gap": "how far a better choice could at most be below the one taken; 0 % means that none is better.",
}


def render_html(result: Result) -> str:
    """The report."""
    template = Template(files("qcc.compiler.report.page").joinpath("report.html").read_text(encoding="utf-8"))
    title = f"{result.model.name} to {result.output.name}: qcc report"
    sections = [
        ("bytes", "Where the bytes are", _bytes(result)),
        ("depth", "Along the depth", _depth(result)),
        ("allocation", "Allocation", _allocation(result)),
        ("outputs", "Outputs compared", _outputs(result)),
        ("layers", "Layers", tables.layers_table(result)),
        ("kept", "Kept as they were", _reached(result) + _kept(result)),
        *([("rewrites", "Rewritten", rewrites_section(result))] if result.rewrites else []),
        ("work", "What the compiler did", _work(result)),
        ("load", "Load it", _load(result)),
        ("terms", "Terms", _terms()),
    ]
    links = "".join(f'<a href="#{key}">{heading}</a>' for key, heading, _ in sections)
    body = [f"<header>\n{_headline(result)}\n<nav>{links}</nav>\n</header>\n<main>"]
    body += [_warning(one, result) for one in result.warnings]
    body += [f'<p class="soft">{escaped(note)}</p>' for note in result.notes]
    body += [f'<section id="{key}">\n<h2>{heading}</h2>\n{content}\n</section>' for key, heading, content in sections]
    return template.substitute(title=escaped(title), body="\n".join([*body, "</main>"]))


def _headline(result: Result) -> str:
    names = f"{escaped(result.model.name)} <small>→</small> {escaped(result.output.name)}"
    bounds = result.verification.bounds
    if not result.passed:
        css = "bad"
        verdict = (
            f"✗ verification failed, {'the file is kept to be looked at' if result.written else 'no file was written'}"
        )
    elif bounds:
        css, verdict = "good", f"✓ verified: {tables.count(len(bounds), 'bound')} met"
    else:
        css, verdict = "idle", "compared; the policy sets no bounds"
    if result.passed and not result.written:
        verdict += ", no file was written"
    tiles = "".join(
        f'<div><dt>{label}</dt><dd class="big">{big}</dd><dd class="soft">{small}</dd></div>'
        for label, big, small in _tiles(result)
    )
    head = f'<h1>{names}</h1>\n<span class="badge {css}">{verdict}</span>'
    return f'{head}\n<dl class="tiles">{tiles}</dl>\n{_bounds(result)}'


def _tiles(result: Result) -> list[tuple[str, str, str]]:
    before, after = result.input_bytes, result.output_bytes
    ratio = f"{before / after:.2f}× smaller, " if 0 < after < before else ""
    of = f"{ratio}{share_text(after / before)} of the original" if before else "the original is empty"
    weights = sum(row.shape[0] * row.shape[1] for row in result.layers)
    bits = average_bits(result.layers) or math.nan
    encoded = sum(bool(row.form) for row in result.layers)
    tiles = [
        ("file size", f"{size_text(before)} → {size_text(after)}", of),
        ("average bits a weight", f"{bits:.2f}" if weights else "–", f"over {weights:,} weights"),
        (
            "layers encoded",
            f"{encoded:,} of {len(result.layers):,}",
            f"{len(result.layers) - encoded:,} kept as they were",
        ),
    ]
    tiles += [] if result.times is None else [_latency_tile(race, result.times) for race in result.times.races]
    outputs = result.verification.kernel_outputs or result.verification.outputs
    if outputs:
        cosine = min(outputs, key=lambda one: worst_first(one.cosine))
        sqnr = min(outputs, key=lambda one: worst_first(one.sqnr))
        where = ", on generated data" if result.verification.generated else ""
        tiles.append(("worst output, cosine", cosine_text(cosine.cosine), escaped(cosine.output) + where))
        tiles.append(("worst output, SQNR", sqnr_text(sqnr.sqnr), escaped(sqnr.output) + where))
    return tiles


def _latency_tile(race: Race, times: ModelTimes) -> tuple[str, str, str]:
    change = f"{milliseconds(race.median_s(0))} → {milliseconds(race.median_s(times.entrant))}"
    css = {"slower": "bad", "unsure": "bad", "faster": "good"}.get(verdict(race.ratio(times.entrant)), "")
    words = f'<span class="{css}">{ratio_words(race, times)}</span>' if css else ratio_words(race, times)
    how = "with kernels" if times.with_kernels else "in plain ONNX Runtime"
    return f"latency, {race.threads_text}", change, f"{words}, {how}; one sample"


def _bounds(result: Result) -> str:
    lines = []
    where = " on generated data" if result.verification.generated else ""
    for check in result.verification.bounds:
        css, word = ("good", "✓ pass") if check.passed else ("bad", "✗ fail")
        asked, found = escaped(check.bound.text), escaped(tables.bound_value(check))
        badge = f'<span class="badge {css}">{word}</span>'
        more = f" {escaped(check.excuse)}" if check.excuse else ""
        lines.append(f"<li>{badge}<code>{asked}</code> found <b>{found}</b>{where}{more}</li>")
    lines += [f"<li>{escaped(line)}</li>" for line in losses(result.verification)]
    if rule := suggestion(result):
        lines.append(f"<li>this may help, at the end of the policy: <code>{escaped(rule)}</code></li>")
    return f'<ul class="plain">{"".join(lines)}</ul>' if lines else ""


def _warning(one: Diagnostic, result: Result) -> str:
    place = f" at <code>{escaped(file_names(one.span.location, result))}</code>" if one.span else ""
    more = "".join(
        f'<br/><span class="soft">{label}: {escaped(file_names(text, result))}</span>'
        for label, text in (("note", one.note), ("help", one.help))
        if text
    )
    message = escaped(file_names(one.message, result))
    return f'<div class="warning"><b>warning {escaped(one.code)}</b>{place}: {message}{more}</div>'


def _bytes(result: Result) -> str:
    chart = bytes_chart(result.layers, result.input_bytes, result.output_bytes)
    caption = "Both files to one scale, then the compressed one enlarged, in the order in which the layers run."
    figure = f'<figure><div class="chart">{chart}</div><figcaption>{caption}</figcaption></figure>'
    return f"{figure}\n{tables.formats_table(result)}"


def _depth(result: Result) -> str:
    if not result.layers:
        return "<p>The model has no layer with a weight.</p>"
    caption = (
        "Layers from the input (left) to the output (right); colours as above; a ring alone is a layer kept as it was."
    )
    step = group_size(len(result.layers))
    if step > 1:
        caption += (
            f" {len(result.layers):,} layers in groups of {step} neighbours: sizes and losses are sums, bits a mean, "
            "the signal to noise is the worst of the group, the colour that of its largest layer."
        )
    if all(row.loss is None for row in result.layers):
        caption += " The loss at the output was not measured" + (
            "." if result.allocation else ": nothing was left to choose."
        )
    return f'<figure><div class="chart">{depth_chart(result.layers)}</div><figcaption>{caption}</figcaption></figure>'


def _allocation(result: Result) -> str:
    found = result.allocation
    if found is None:
        return "<p>The policy names one format for each layer, so there was nothing to choose.</p>"
    return tables.facts(_allocation_facts(found, result))


def _allocation_facts(found: Allocation, result: Result) -> list[tuple[str, str]]:
    scaled = max(found.candidates - found.measured, 0)
    gap = (
        "0 %: proven, no other choice is better" if found.gap <= 0 else f"at most {share_text(found.gap)} from the best"
    )
    if found.predicted_error is None:
        scaled = 0
    how = f"{found.measured:,} measured at the output"
    how += f", {scaled:,} scaled from a measured one by their error in the weight" if scaled else ", none scaled"
    worst = min((one.sqnr for one in result.verification.outputs), key=worst_first, default=math.nan)
    return [
        ("objective", f"minimize <code>{escaped(found.objective)}</code>"),
        ("limits", ", ".join(f"<code>{escaped(one)}</code>" for one in found.limits) or "none"),
        ("proven gap", gap),
        ("layers to decide", f"{found.options:,} of {len(result.layers):,}"),
        ("candidates", f"{found.candidates:,}: {how}"),
        (f"{additive()[found.metric].title}, predicted", _predicted(found)),
        ("output error, found", f"{sqnr_text(worst)} at the worst output"),
    ]


def _predicted(found: Allocation) -> str:
    error, metric = found.predicted_error, additive()[found.metric]
    if error is None:
        return "not measured: the choice does not rest on it"
    if "%" not in metric.units:
        return metric.text(error)
    return f"{power_text(error)} (noise over signal {ratio_text(error, 3)})"


def _outputs(result: Result) -> str:
    done = result.verification
    origin = file_names(re.split(r"[/\\]", done.origin)[-1], result)
    samples = f"{tables.count(done.samples, 'sample')} ({escaped(origin)}{' data' if done.generated else ''})"
    text = f"<p>The written file and the original, both run by ONNX Runtime on {samples}.</p>\n"
    text += f"<p>{escaped(MISLEADS)}</p>\n" if done.generated else ""
    text += tables.outputs_table(done.outputs)
    told = [f"<code>{escaped(one.output)}</code>: {escaped(note)}" for one in done.outputs for note in one.notes]
    told += [escaped(note) for note in done.notes]
    text += f"\n<ul>{tables.listed(told)}</ul>" if told else ""
    if done.kernel_outputs:
        text += "\n<p>With the kernels beside it:</p>\n" + tables.outputs_table(done.kernel_outputs)
    return text


def _reached(result: Result) -> str:
    """Which bytes of the input were reached, and why the others were not."""
    return "" if result.reach is None else f"<p>Reached: {escaped(' '.join(result.reach.lines))}.</p>"


def _kept(result: Result) -> str:
    reasons: dict[str, list[str]] = {}
    for one in result.plan.kept:
        reasons.setdefault(file_names(one.reason, result), []).append(f"<code>{escaped(one.weight)}</code>")
    if not reasons:
        return "<p>None.</p>"
    return "\n".join(
        tables.folded(f"<b>{escaped(reason or 'no reason given')}</b>: {tables.count(len(names), 'layer')}", names)
        for reason, names in reasons.items()
    )


def _work(result: Result) -> str:
    if not result.plan.steps:
        return "<p>Nothing: the output is a copy of the input.</p>"
    edits = [escaped(file_names(one, result)) for one in result.edits]
    cleaned = f"<code>clean</code>: {tables.count(len(edits), 'edit')}"
    parts = [tables.folded(cleaned, edits) if edits else "<code>clean</code>: there was nothing to remove"]
    for step in result.plan.steps:
        if not isinstance(step.action, Clean):
            weights = f": {tables.count(len(step.weights), 'layer')}" if step.weights else ""
            parts.append(f"<code>{escaped(action_text(step.action))}</code>{weights}")
    parts += [f"data: {escaped(line)}" for line in data_lines(result.layers)]
    return f"<ol>{tables.listed(parts)}</ol>"


def _load(result: Result) -> str:
    if not result.written:
        return "<p>No file was written.</p>"
    lines = ["import onnxruntime", f"session = onnxruntime.InferenceSession({result.output.name!r})"]
    if result.kernels is not None:
        lines = ["import os", "import onnxruntime", "options = onnxruntime.SessionOptions()"]
        lines.append(f"options.register_custom_ops_library(os.path.abspath({result.kernels.name!r}))")
        lines.append(f"session = onnxruntime.InferenceSession({result.output.name!r}, options)")
    lines.append("outputs = session.run(None, feeds)  # feeds: the original's inputs, by name")
    code = "\n".join(escaped(line) for line in lines)
    told = [] if result.passed else ["It failed its verification, and is not what was asked for."]
    if result.data is not None:
        told.append(f"Its weights lie in <code>{escaped(result.data.name)}</code>: keep the two together.")
    return "\n".join([f"<pre>{code}</pre>", *(f'<p class="soft">{line}</p>' for line in told)])


def _terms() -> str:
    terms = [(f"form <code>{form.name}</code>", form.explains) for form in forms().values()]
    return tables.facts([*terms, *TERMS.items()])
