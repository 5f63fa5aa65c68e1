"""The report's tables."""

from collections.abc import Iterable, Sequence

from qcc.compiler.metrics.find import judged, to_measure
from qcc.compiler.metrics.metric import Judged
from qcc.compiler.metrics.texts import ratio_text, share_text
from qcc.compiler.report.result import LayerRow, Result, average_bits
from qcc.compiler.report.text import (
    breakable,
    colour,
    escaped,
    file_names,
    power_text,
    size_text,
)
from qcc.compiler.verify.outputs import BoundCheck, OutputCheck
from qcc.passes.encode import Encode

LISTED = 12
"""A longer list is folded."""

Cell = tuple[str, str]
"""A CSS class, which may be empty, and HTML."""


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Labels with what they say, both HTML."""
    return f'<dl class="facts">{"".join(f"<dt>{label}</dt><dd>{text}</dd>" for label, text in pairs)}</dl>'


def folded(summary: str, items: Sequence[str]) -> str:
    """A list behind its summary, all HTML; a short one is open."""
    state = ' open=""' if len(items) <= LISTED else ""
    return f"<details{state}><summary>{summary}</summary><ul>{listed(items)}</ul></details>"


def listed(items: Iterable[str]) -> str:
    """The items of a list."""
    return "".join(f"<li>{one}</li>" for one in items)


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def bound_value(check: BoundCheck) -> str:
    """The value that a bound was held to."""
    return judged()[check.bound.metric].text(check.value, check.bound.quantity.unit)


def outputs_table(outputs: Sequence[OutputCheck]) -> str:
    """How each output compares."""
    found = to_measure(name for one in outputs for name in one.found.values)
    head = [("", "output"), *(("n", one.title or one.name) for one in found)]
    rows = [[("", breakable(one.output)), *_measures(one, found)] for one in outputs]
    if any(one.changed is not None for one in outputs):
        head.append(("n", "whole numbers changed"))
        for row, one in zip(rows, outputs, strict=True):
            row.append(("n", "–" if one.changed is None else share_text(one.changed)))
    return table("Outputs", head, rows)


def _measures(one: OutputCheck, metrics: Sequence[Judged]) -> list[Cell]:
    """Where a metric can be a share, as such."""
    return [("n", metric.text(one.found.values[metric.name], "%" if "%" in metric.units else "")) for metric in metrics]


def formats_table(result: Result) -> str:
    """What each format holds: the legend of the charts."""
    found: dict[tuple[bool, str, str], list[LayerRow]] = {}
    for row in sorted(result.layers, key=lambda row: (not row.form, row.format, row.form)):
        found.setdefault((not row.form, row.format, row.form), []).append(row)
    head = [
        ("", "format"),
        ("", "form"),
        ("n", "layers"),
        ("n", "weights"),
        ("n", "before"),
        ("n", "after"),
        ("n", "bits"),
    ]
    rows = [_format_row(rows, result.output_bytes) for rows in found.values()]
    rest = [size - sum(sizes) for size, sizes in _totals(result)]
    if min(rest) >= 0:
        blank = ("n", "")
        name = '<i class="rest"></i>graph, biases, small constants'
        sizes = [("n", size_text(size)) for size in rest]
        rows.append([("f", name), ("", ""), blank, blank, *sizes, blank, _bar("rest", rest[1], result.output_bytes)])
    return table("Formats", [*head, ("", "share of the file")], rows)


def _totals(result: Result) -> list[tuple[int, list[int]]]:
    before = [row.original_bytes for row in result.layers]
    return [(result.input_bytes, before), (result.output_bytes, [row.size_bytes for row in result.layers])]


def _format_row(rows: Sequence[LayerRow], file_bytes: int) -> list[Cell]:
    first, size = rows[0], sum(row.size_bytes for row in rows)
    weights = sum(row.shape[0] * row.shape[1] for row in rows)
    kept = "" if first.form else ", kept"
    return [
        ("f", f"{_swatch(first)}{escaped(first.format)}{kept}"),
        ("", escaped(first.form or "–")),
        ("n", f"{len(rows):,}"),
        ("n", f"{weights:,}"),
        ("n", size_text(sum(row.original_bytes for row in rows))),
        ("n", size_text(size)),
        ("n", f"{average_bits(rows) or 0:.2f}"),
        _bar(colour(first), size, file_bytes),
    ]


def _bar(css: str, size: int, whole: int) -> Cell:
    share = size / whole if whole else 0.0
    return ("f", f'<b class="{css}" style="width:{min(share, 1) * 9:.2f}em"></b> {share_text(share)}')


def layers_table(result: Result) -> str:
    """Every layer with what became of it and why."""
    if not result.layers:
        return "<p>None.</p>"
    head = [("n", "#"), ("", "layer"), ("", "kind"), ("n", "shape"), ("", "format"), ("", "form"), ("n", "before")]
    head += [("n", "after"), ("n", "bits"), ("n", "weight SQNR"), ("n", "output loss"), ("", "reason"), ("", "rule")]
    places = _places(result)
    rows = [_layer_row(at, row, places, result) for at, row in enumerate(result.layers, 1)]
    text = '<p class="soft">In the order in which they run; a shared weight appears once.</p>'
    return f'{text}\n<div class="layers">{table("Layers", head, rows, heading=1)}</div>'


def _layer_row(number: int, row: LayerRow, places: dict[str, str], result: Result) -> list[Cell]:
    """The columns are classed by the style sheet, by their places: there may be thousands of rows."""
    texts = [
        str(number),
        breakable(row.name),
        escaped(", ".join(row.kinds)),
        f"{row.shape[0]} × {row.shape[1]}",
        f"{_swatch(row)}{escaped(row.format)}",
        escaped(row.form or "kept"),
        size_text(row.original_bytes),
        size_text(row.size_bytes),
        f"{row.bits:.2f}",
        power_text(row.error),
        "–" if row.loss is None else ratio_text(row.loss),
        escaped(file_names(row.reason, result)),
        escaped(places.get(row.name, "")),
    ]
    return [("", text) for text in texts]


def _places(result: Result) -> dict[str, str]:
    """Where the policy asked for each encoded weight."""
    found: dict[str, str] = {}
    for step in result.plan.steps:
        if isinstance(step.action, Encode):
            found.update(zip(step.weights, (file_names(place, result) for place in step.sources), strict=True))
    return found


def _swatch(row: LayerRow) -> str:
    return f'<i class="{colour(row)}"></i>'


def table(label: str, head: Sequence[Cell], rows: Sequence[Sequence[Cell]], heading: int = 0) -> str:
    """A table that scrolls under its header; column ``heading`` names the row."""
    top = "".join(f'<th scope="col"{_css(css)}>{text}</th>' for css, text in head)
    body = "\n".join(f"<tr>{_cells(row, heading)}</tr>" for row in rows)
    inner = f"<table><thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{inner}</div>'


def _cells(row: Sequence[Cell], heading: int) -> str:
    cells = [f"<td{_css(css)}>{text}</td>" for css, text in row]
    css, text = row[heading]
    cells[heading] = f'<th scope="row"{_css(css)}>{text}</th>'
    return "".join(cells)


def _css(css: str) -> str:
    return f' class="{css}"' if css else ""
