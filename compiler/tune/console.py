"""A search for people and programs: a table, and JSON."""

import math
from typing import Any

from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.percent import percent
from qcc.compiler.console.terminal import write_line, write_table, write_topics
from qcc.compiler.tune.space import Choice
from qcc.compiler.tune.tune import TuneResult
from qcc.dsl.diagnostics.excerpt import escape


def write_tune(found: TuneResult) -> None:
    """Print it."""
    rows = []
    for at, one in enumerate(found.trials):
        size = "-" if math.isinf(one.size_bytes) else f"{one.size_bytes:,.0f}"
        lost = escape(one.why) if one.why else percent(one.lost)
        rows.append((_text(one.choice), size, lost, "best" if at == found.best else ""))
    write_table(Table((Column("parameters"), Column("bytes", right=True), Column("lost"), Column("")), tuple(rows)))
    write_line()
    calibrated, chose, judged = found.samples
    before, after = map(percent, found.lost)
    verdict = f"{_text(found.trials[found.best].choice)}: {after} is lost, with the defaults {before}"
    if not found.best:
        verdict = f"no run lost less in a file that is no larger; the defaults lose {before}"
    elif not found.beats:
        verdict = f"the defaults are not beaten with 95 % confidence: {verdict}"
    about = f"on {judged} samples; {chose} others chose, {calibrated} calibrated"
    write_topics({"judged": [(verdict, None), (about, None)]})


def as_json(found: TuneResult) -> dict[str, Any]:
    """For programs."""
    trials = [
        {
            "parameters": one.choice,
            "size_bytes": None if math.isinf(one.size_bytes) else one.size_bytes,
            "lost": None if math.isinf(one.lost) else one.lost,
            "why": one.why,
        }
        for one in found.trials
    ]
    judged = {"defaults": found.lost[0], "best": found.lost[1]}
    samples = dict(zip(("calibrate", "choose", "judge"), found.samples, strict=True))
    return {"trials": trials, "best": found.best, "judged": judged, "beats": found.beats, "samples": samples}


def _text(choice: Choice) -> str:
    return " ".join(f"-D {name}={value}" for name, value in choice.items()) or "defaults"
