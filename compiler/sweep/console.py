"""A sweep for people and programs: a table, and JSON."""

from dataclasses import asdict
from typing import Any

import numpy as np

from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.percent import percent
from qcc.compiler.console.terminal import paint, write_line, write_table, write_topics
from qcc.compiler.metrics.find import additive
from qcc.compiler.sweep.sweep import Sweep
from qcc.dsl.diagnostics.excerpt import escape


def write_sweep(found: Sweep) -> None:
    """Print it."""
    write_line(paint(escape(str(found.model)), "bold"))
    write_line()
    titles = ("bytes", "of input", "bits", found.metric, "law")
    rows = []
    for at, one in enumerate(found.points):
        law = "-" if found.law is None else _loss(found, found.law(one.parts))
        mark = "knee" if at == found.knee else ""
        numbers = f"{one.size_bytes:,.0f}", percent(one.size_bytes / found.input_bytes), f"{one.bits:.2f}"
        rows.append((*numbers, _loss(found, one.loss), law, mark))
    write_table(Table((*(Column(title, right=True) for title in titles), Column("")), tuple(rows)))
    write_line()
    write_topics({name: [(line, None) for line in lines] for name, lines in _topics(found).items() if lines})


def _topics(found: Sweep) -> dict[str, list[str]]:
    data = "generated data: give some with `--data`" if found.origin == "generated" else found.origin
    knee = [] if found.knee is None else [_knee(found, found.knee)]
    law = ["too few points for a law: ask for more `--sizes`, or give the layers more candidates"]
    if found.law is not None:
        errors = found.law.errors
        off = f"{percent(float(np.median(errors)))} off in the median, {percent(max(errors))} at most"
        left_out = sum(one.loss >= found.law.most for one in found.points)
        fit = f", without {left_out} of them where all is lost" if left_out else ""
        *first, last = found.law.lines
        law = [*first, f"{last}, by {len(found.points)} points{fit}", f"of a point that is left out it is {off}"]
    return {
        "losses": [f"foreseen at the outputs, measured on up to {found.samples:,} samples of {data}"],
        "law": law,
        "knee": knee,
    }


def _knee(found: Sweep, at: int) -> str:
    one = found.points[at]
    return f"at {one.size_bytes:,.0f} bytes, {one.bits:.2f} bits a weight: from there on more bytes gain less"


def _loss(found: Sweep, value: float) -> str:
    metric = additive()[found.metric]
    return percent(value) if "%" in metric.units else metric.text(value)


def as_json(found: Sweep) -> dict[str, Any]:
    """As plain data."""
    law = found.law
    return {
        "model": str(found.model),
        "input_bytes": found.input_bytes,
        "metric": found.metric,
        "samples": found.samples,
        "origin": found.origin,
        "points": [
            {
                "bytes": one.size_bytes,
                "bits": one.bits,
                "loss": one.loss,
                "kinds": {name: {"bits": part.bits, "loss": part.loss} for name, part in one.parts.items()},
            }
            for one in found.points
        ],
        "knee": found.knee,
        "law": None
        if law is None
        else {
            "kinds": {name: asdict(one) for name, one in law.laws.items()},
            "held_one_out": list(law.errors),
        },
    }
