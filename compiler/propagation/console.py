"""A propagation for people and programs: a table of layers in the order in which they run, and JSON."""

from dataclasses import asdict
from typing import Any

from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.percent import percent
from qcc.compiler.console.terminal import paint, write_line, write_table, write_topics
from qcc.compiler.propagation.trace import Propagation
from qcc.dsl.diagnostics.excerpt import escape

NAMES = {
    "foretold": "foretold",
    "alone": "own noise",
    "measured": "noise measured",
    "peak": "largest over median",
    "kurtosis": "kurtosis",
}


def write_propagation(found: Propagation) -> None:
    """Print it."""
    write_line(paint(escape(str(found.model)), "bold"))
    write_line()
    lost = any(one.loss is not None for one in found.layers)
    titles = (
        "noise",
        "own",
        "carried",
        "interacting",
        "gain",
        "max/median",
        "kurtosis",
        "foretold",
        *(("output loss",) if lost else ()),
    )
    columns = (Column("layer", cut=True), *(Column(title, right=True) for title in titles))
    rows = []
    for one in found.layers:
        parts = (percent(part) for part in (one.measured, one.own, one.carried, one.interacting))
        facts = f"{one.gain:.2f}", f"{one.peak:.1f}", f"{one.kurtosis:.1f}"
        told = (one.foretold, *((one.loss,) if lost else ()))
        rows.append((one.layer, *parts, *facts, *("-" if loss is None else percent(loss) for loss in told)))
    write_table(Table(columns, tuple(rows)))
    write_line()
    topics = {
        "parts": [f"own, carried and interacting add up to the noise measured, within {percent(found.gap)} where most"],
        "gain": ["of noise over signal, from what a layer reads to what it makes, where the layer is float"],
        "foretold": ["own noise behind the layer's block, times the gains of the blocks behind: noise at the outputs"],
        "ranks": [_ranks(found)] if found.agreement else [],
        "data": [f"{found.samples} samples of {escape(found.origin)}"],
    }
    write_topics({name: [(line, None) for line in lines] for name, lines in topics.items() if lines})


def _ranks(found: Propagation) -> str:
    told = ", ".join(f"{NAMES[name]} {value:.2f}" for name, value in found.agreement.items())
    return f"agreement with the order of output losses (Spearman): {told}"


def as_json(found: Propagation) -> dict[str, Any]:
    """All of it as plain data."""
    return {
        "model": str(found.model),
        "layers": [asdict(one) | {"gap": one.gap} for one in found.layers],
        "gap": found.gap,
        "agreement": dict(found.agreement),
        "samples": found.samples,
        "origin": found.origin,
    }
