"""The layers of a compilation in tables for people: a row a layer, or a row a format."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.numbered_names import collapse
from qcc.compiler.console.percent import percent
from qcc.compiler.report.result import LayerRow, average_bits

NONE = "-"
LAYER_COLUMNS = (
    Column("layer", cut=True),
    Column("kind", spare=3),
    Column("shape", spare=2),
    Column("format"),
    Column("form", spare=1),
)
UNSAID = re.compile(r"( sym)?( scale fp16)?(?=[,)]|$)")
"""The words of a format that go without saying."""
LONGEST = 24
"""Columns of a format that a table has room for."""


def names_of(layers: Iterable[LayerRow]) -> dict[str, str]:
    """What a table calls each format: itself without what goes without saying; one of long parts by a number."""
    short = dict.fromkeys(UNSAID.sub("", row.format) for row in layers)
    long = [text for text in short if "(" in text and len(text) > LONGEST]
    return {text: f"{text.partition('(')[0]} [{long.index(text) + 1}]" if text in long else text for text in short}


def footnotes(layers: Iterable[LayerRow]) -> list[str]:
    """What the numbers of formats stand for: a line each."""
    return [f"{name.rpartition(' ')[2]} {text}" for text, name in names_of(layers).items() if name != text]


def layer_table(layers: Sequence[LayerRow], alone: bool = False) -> Table:
    """A row a weight; layers whose names differ in one number share one unless each is to stand ``alone``."""
    parts = [(row.name, [row]) for row in layers]
    if not alone:
        parts = collapse(layers, lambda row: row.name, lambda row: (row.kinds, row.shape, row.format, row.form))
    names = names_of(layers)
    loss = any(row.loss is not None for row in layers)
    numbers = ["bytes", "bits", "sqnr"] + ["output loss"] * loss
    rows = tuple(tuple(_layer_cells(name, part, names)[: len(LAYER_COLUMNS) + len(numbers)]) for name, part in parts)
    return Table((*LAYER_COLUMNS, *(Column(title, right=True) for title in numbers)), rows)


def format_table(layers: Sequence[LayerRow]) -> Table:
    """A row for each format and form, the largest first; the layer that suffers most stands for its group."""
    names = names_of(layers)
    groups: dict[tuple[str, str], list[LayerRow]] = {}
    for row in layers:
        groups.setdefault((row.format, row.form), []).append(row)
    rows = []
    for (format, form), members in sorted(groups.items(), key=lambda item: -sum(row.size_bytes for row in item[1])):
        size, params = sum(row.size_bytes for row in members), sum(row.shape[0] * row.shape[1] for row in members)
        worst = max(members, key=lambda row: row.error)
        name, bits = worst.name if worst.error else NONE, f"{average_bits(members) or 0:.2f}"
        numbers = f"{len(members):,}", f"{params:,}", f"{size:,}", bits, decibels(worst.error)
        rows.append((_name(format, names), form or NONE, *numbers, name))
    titles = ("layers", "weights", "bytes", "bits", "worst sqnr")
    spare = {"layers": 1, "weights": 2}
    counted = (Column(title, right=True, spare=spare.get(title, 0)) for title in titles)
    columns = (Column("format"), Column("form"), *counted, Column("of", cut=True))
    return Table(columns, tuple(rows))


def decibels(error: float) -> str:
    """Noise power over signal power as a signal-to-noise ratio."""
    return NONE if error <= 0 else f"{-10 * math.log10(error):.1f} dB"


def _name(format: str, names: Mapping[str, str]) -> str:
    return names[UNSAID.sub("", format)]


def _layer_cells(name: str, rows: Sequence[LayerRow], names: Mapping[str, str]) -> list[str]:
    row = rows[0]
    shape = f"{row.shape[0]}x{row.shape[1]}"
    losses = [one.loss for one in rows if one.loss is not None]
    start = [name, "+".join(row.kinds), shape, _name(row.format, names), row.form or NONE]
    size, bits, error = (
        sum(one.size_bytes for one in rows),
        average_bits(rows) or row.bits,
        max(one.error for one in rows),
    )
    return [*start, f"{size:,}", f"{bits:.2f}", decibels(error), percent(max(losses)) if losses else NONE]
