"""The report's tables."""

from collections.abc import Iterable, Sequence

from qcc.compiler.report_text import (
    colour,
    cosine_text,
    escaped,
    file_names,
    power_text,
    share_text,
    size_text,
    sqnr_text,
)
from qcc.compiler.result import LayerRow, Result
from qcc.compiler.verify import BoundCheck, OutputCheck
from qcc.passes.encode import Encode

Cell = tuple[str, str]
"""A CSS class, which may be empty, and HTML."""


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Labels with what they say, both HTML."""
    return f'<dl class="facts">{"".join(f"<dt>{label}</dt><dd>{text}</dd>" for label, text in pairs)}</dl>'


def bound_value(check: BoundCheck) -> str:
    """The value that a bound was held to."""
    if check.bound.metric == "sqnr":
        return sqnr_text(check.value)
    if check.bound.metric == "cosine":
        return cosine_text(check.value)
    return share_text(check.value) if check.bound.quantity.unit == "%" else f"{check.value:.4g}"


def outputs_table(outputs: Sequence[OutputCheck]) -> str:
    """How each output compares."""
    head = [("", "output"), ("n", "cosine"), ("n", "SQNR"), ("n", "largest relative error"), ("n", "whole numbers changed")]
    rows = [
        [
            ("", escaped(one.output)),
            ("n", cosine_text(one.cosine)),
            ("n", sqnr_text(one.sqnr)),
            ("n", share_text(one.relative_error)),
            ("n", "–" if one.changed is None else share_text(one.changed)),
        ]
        for one in outputs
    ]
    return _table("Outputs", head, rows)


def formats_table(result: Result) -> str:
    """What each format holds: the legend of the charts."""
    found: dict[tuple[bool, str, str], list[LayerRow]] = {}
    for row in sorted(result.layers, key=lambda row: (not row.form, row.format, row.form)):
        found.setdefault((not row.form, row.format, row.form), []).append(row)
    head = [("", "format"), ("", "form"), ("n", "layers"), ("n", "weights"), ("n", "before"), ("n", "after"), ("n", "bits")]
    rows = [_format_row(rows, result.output_bytes) for rows in found.values()]
    rest = [size - sum(sizes) for size, sizes in _totals(result)]
    if min(rest) >= 0:
        blank = ("n", "")
        name = '<span class="swatch rest"></span>graph, biases, small constants'
        sizes = [("n", size_text(size)) for size in rest]
        rows.append([("f", name), ("", ""), blank, blank, *sizes, blank, _bar("rest", rest[1], result.output_bytes)])
    return _table("Formats", [*head, ("", "share of the file")], rows)


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
        ("n", f"{8 * size / max(weights, 1):.2f}"),
        _bar(colour(first), size, file_bytes),
    ]


def _bar(css: str, size: int, whole: int) -> Cell:
    share = size / whole if whole else 0.0
    return ("f", f'<span class="bar {css}" style="width:{min(share, 1) * 9:.2f}em"></span> {share_text(share)}')


def layers_table(result: Result) -> str:
    """Every layer with what became of it and why."""
    if not result.layers:
        return "<p>None.</p>"
    head = [("n", "#"), ("", "layer"), ("", "kind"), ("n", "shape"), ("", "format"), ("", "form"), ("n", "before")]
    head += [("n", "after"), ("n", "bits"), ("n", "weight SQNR"), ("n", "output loss"), ("", "reason"), ("", "rule")]
    places = _places(result)
    rows = [_layer_row(at, row, places, result) for at, row in enumerate(result.layers, 1)]
    text = "<p class=\"soft\">In the order in which they run; a shared weight appears once.</p>\n"
    return text + _table("Layers", head, rows, heading=1)


def _layer_row(number: int, row: LayerRow, places: dict[str, str], result: Result) -> list[Cell]:
    return [
        ("n", str(number)),
        ("", escaped(row.name)),
        ("", escaped(", ".join(row.kinds))),
        ("n", f"{row.shape[0]} × {row.shape[1]}"),
        ("f", f"{_swatch(row)}{escaped(row.format)}"),
        ("", escaped(row.form or "kept")),
        ("n", size_text(row.original_bytes)),
        ("n", size_text(row.size_bytes)),
        ("n", f"{row.bits:.2f}"),
        ("n", power_text(row.error)),
        ("n", "–" if row.loss is None else f"{row.loss:.2g}"),
        ("r", escaped(file_names(row.reason, result))),
        ("p", escaped(places.get(row.name, ""))),
    ]


def _places(result: Result) -> dict[str, str]:
    """Where the policy asked for each encoded weight."""
    found = {}
    for step in result.plan.steps:
        if isinstance(step.action, Encode):
            found.update(zip(step.weights, (file_names(place, result) for place in step.sources), strict=True))
    return found


def _swatch(row: LayerRow) -> str:
    return f'<span class="swatch {colour(row)}"></span>'


def _table(label: str, head: Sequence[Cell], rows: Sequence[Sequence[Cell]], heading: int = 0) -> str:
    """A table that scrolls under its header; column ``heading`` names the row."""
    top = "".join(f'<th scope="col"{_css(css)}>{text}</th>' for css, text in head)
    body = "\n".join(f"<tr>{_cells(row, heading)}</tr>" for row in rows)
    table = f"<table><thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{table}</div>'


def _cells(row: Sequence[Cell], heading: int) -> str:
    cells = [f"<td{_css(css)}>{text}</td>" for css, text in row]
    css, text = row[heading]
    cells[heading] = f'<th scope="row"{_css(css)}>{text}</th>'
    return "".join(cells)


def _css(css: str) -> str:
    return f' class="{css}"' if css else ""
