"""An analysis for people and programs: a table, the worst layers first, and JSON."""

from collections.abc import Sequence
from typing import Any

from qcc.compiler.analyze.analyze import Analysis, AnalyzedLayer
from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.numbered_names import collapse
from qcc.compiler.console.percent import percent
from qcc.compiler.console.terminal import paint, write_line, write_table, write_text, write_topics
from qcc.compiler.metrics.find import additive
from qcc.dsl.diagnostics.excerpt import escape

NONE = "-"
LISTED = 30
ALIKE = 4.0  # layers whose losses differ by less share a row, if their names differ in one number


def write_analysis(analysis: Analysis, verbose: bool = False) -> None:
    """Print it; layers of repeated blocks that lose about the same are one row, unless ``verbose``."""
    write_line(paint(escape(str(analysis.model)), "bold"))
    write_line()
    if not analysis.layers:
        write_line("no layer has a weight: there is nothing to compress")
        return
    parts = _parts(analysis, verbose)
    shown = parts if verbose else parts[:LISTED]
    write_table(_table(analysis, shown))
    if len(shown) < len(parts):
        rest = sum(len(members) for _, members in parts[len(shown) :])
        write_text(f"and {rest:,} layers that lose less: `-v` lists all", "dim")
    if not verbose and len(parts) < len(analysis.layers):
        write_text("a row of several layers has their time together and what the worst of them loses", "dim")
    write_line()
    write_topics({name: [(line, None) for line in lines] for name, lines in _topics(analysis).items() if lines})


def _parts(analysis: Analysis, verbose: bool) -> list[tuple[str, list[AnalyzedLayer]]]:
    if verbose:
        return [(one.name, [one]) for one in analysis.layers]
    metric = analysis.metrics[0]
    levels: dict[str, int] = {}
    level, top = 0, 0.0
    for one in analysis.layers:  # the worst first
        loss = max((tried.loss[metric] for tried in one.tried), default=0.0)
        if top > ALIKE * loss:
            level, top = level + 1, 0.0
        top = max(top, loss)
        levels[one.name] = level
    return collapse(analysis.layers, lambda one: one.name, lambda one: (one.kinds, one.shape, levels[one.name]))


def _table(analysis: Analysis, parts: Sequence[tuple[str, list[AnalyzedLayer]]]) -> Table:
    timed = any(one.seconds is not None for one in analysis.layers)
    columns = (
        Column("layer", cut=True),
        Column("kind", spare=2),
        Column("shape", spare=1),
        *([Column("time", right=True)] if timed else []),
        *(Column(_short(name), right=True) for name in analysis.formats),
    )
    rows = []
    for name, members in parts:
        time = [_share(members, analysis)] if timed else []
        losses = [_worst(members, format, analysis.metrics[0]) for format in analysis.formats]
        shape = "x".join(map(str, members[0].shape))
        rows.append((name, "+".join(members[0].kinds), shape, *time, *losses))
    return Table(columns, tuple(rows))


def _short(format: str) -> str:
    """A format as a column's title: the words `channel` and `group` go without saying."""
    return format.replace(" channel", "").replace(" group ", "/")


def _share(members: Sequence[AnalyzedLayer], analysis: Analysis) -> str:
    known = [one.seconds for one in members if one.seconds is not None]
    total = sum(one.seconds for one in analysis.layers if one.seconds is not None)
    return percent(sum(known) / total) if known and total else NONE


def _worst(members: Sequence[AnalyzedLayer], format: str, metric: str) -> str:
    known = [loss for one in members if (loss := one.loss(format, metric)) is not None]
    return _loss_text(max(known), metric) if known else NONE


def _loss_text(value: float, metric: str) -> str:
    if metric not in additive():
        return f"{100 * value:.2f}%"
    found = additive()[metric]
    return percent(value) if "%" in found.units else found.text(value)


def _topics(analysis: Analysis) -> dict[str, list[str]]:
    data = "generated data: give some with `--data`" if analysis.origin == "generated" else analysis.origin
    whole = "" if analysis.seconds is None else f"; the whole model takes {1e3 * analysis.seconds:.3g} ms"
    how = " foreseen by gradients" if analysis.by == "gradients" else ""
    first = analysis.metrics[0]
    what = f"{first} at the outputs" if first in additive() else f"what is lost of {first}"
    return {
        "losses": [
            f"{what} where one layer alone is stored so,{how}",
            f"on up to {analysis.samples:,} samples of {data}",
        ],
        "time": [f"of each layer run alone, as a share of theirs, for one sample{whole}"],
        "all": [_total(analysis, format) for format in analysis.formats],
        "agree": [
            f"{format}: order by {other} and by {analysis.metrics[0]}, {value:.2f}"
            for format, others in analysis.agreement.items()
            for other, value in others.items()
        ],
    }


def _total(analysis: Analysis, format: str) -> str:
    """What all layers together lose and take in a format."""
    metric = analysis.metrics[0]
    tried = [one for layer in analysis.layers for one in layer.tried if one.format == format]
    lost, size = sum(one.loss[metric] for one in tried), sum(one.size_bytes for one in tried)
    layers = f"{len(tried):,} of {len(analysis.layers):,} layers"
    return f"{format} for {layers}: {size:,.0f} bytes, {_loss_text(lost, metric)} in sum"


def as_json(analysis: Analysis) -> dict[str, Any]:
    """As plain data."""
    return {
        "model": str(analysis.model),
        "formats": list(analysis.formats),
        "metrics": list(analysis.metrics),
        "samples": analysis.samples,
        "by": analysis.by,
        "origin": analysis.origin,
        "seconds": analysis.seconds,
        "agreement": {format: dict(others) for format, others in analysis.agreement.items()},
        "layers": [
            {
                "name": one.name,
                "kinds": list(one.kinds),
                "shape": list(one.shape),
                "bytes": one.size_bytes,
                "seconds": one.seconds,
                "formats": [
                    {"format": tried.format, "bytes": tried.size_bytes, "loss": dict(tried.loss)} for tried in one.tried
                ],
            }
            for one in analysis.layers
        ],
    }
