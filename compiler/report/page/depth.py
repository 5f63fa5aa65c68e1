"""The report's chart of the layers along the depth."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qcc.compiler.metrics.texts import ratio_text
from qcc.compiler.report.page.shapes import LEFT, RIGHT, Shape, box, group, number, path, svg, text
from qcc.compiler.report.result import LayerRow, average_bits
from qcc.compiler.report.text import (
    LONGEST_NAME,
    colour,
    decibels,
    formats_text,
    power_text,
    short,
    size_text,
)

COLUMNS = 80
"""More layers than this are charted in groups."""

PANEL, PANEL_GAP = 88, 34
LABELLED = 24


@dataclass(frozen=True)
class _Column:
    """One place along the depth: a layer, or several neighbours."""

    first: int
    rows: tuple[LayerRow, ...]

    @property
    def css(self) -> str:
        return colour(max(self.rows, key=lambda row: row.size_bytes))

    @property
    def before(self) -> int:
        return sum(row.original_bytes for row in self.rows)

    @property
    def after(self) -> int:
        return sum(row.size_bytes for row in self.rows)

    @property
    def bits(self) -> float:
        return average_bits(self.rows) or 0.0

    @property
    def error(self) -> float:
        return max(row.error for row in self.rows)

    @property
    def loss(self) -> float | None:
        known = [row.loss for row in self.rows if row.loss is not None]
        return sum(known) if known else None

    @property
    def title(self) -> str:
        last = self.first + len(self.rows) - 1
        place = f"{self.first + 1}" if len(self.rows) == 1 else f"{self.first + 1} to {last + 1}"
        lines = [f"{place}: {short(self.rows[0].name, LONGEST_NAME)}", formats_text(self.rows)]
        lines.append(f"{size_text(self.before)} to {size_text(self.after)}, {self.bits:.2f} bits")
        lines.append(
            f"weight {power_text(self.error)}" + ("" if self.loss is None else f", output loss {ratio_text(self.loss)}")
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Panel:
    """One plot of the stack; values run from ``low`` at the bottom to ``high``."""

    top: float
    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def y(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.top + PANEL * (1 - share)

    def frame(self) -> list[Shape]:
        shapes = [text(LEFT, self.top - 10, self.title, "head")]
        for value, label in self.ticks:
            y = self.y(value)
            shapes += [path("axis", f"M{LEFT} {number(y)}H{RIGHT}"), text(LEFT - 8, y + 4, label, "end tick")]
        return shapes


def depth_chart(layers: Sequence[LayerRow]) -> Shape:
    """Size, bits, weight error and output loss of each layer, one above the other, in the order in which they run."""
    step = group_size(len(layers))
    columns = [_Column(at, tuple(layers[at : at + step])) for at in range(0, len(layers), step)]
    wide = (RIGHT - LEFT) / len(columns)
    centres = [LEFT + wide * (at + 0.5) for at in range(len(columns))]
    plots = [_sizes, _bits, _errors, *([_losses] if any(one.loss is not None for one in columns) else [])]
    drawn = [plot(columns, centres, 24 + at * (PANEL + PANEL_GAP)) for at, plot in enumerate(plots)]
    bottom = 24 + len(plots) * (PANEL + PANEL_GAP) - PANEL_GAP
    shapes = [shape for panel, _ in drawn for shape in panel.frame()]
    for at, column in enumerate(columns):
        hit = box("hit", centres[at] - wide / 2, 20, wide, bottom - 16)
        marks = [shape for _, found in drawn for shape in found[at]]
        shapes.append(group(column.css, column.title, [hit, *marks]))
    shapes += _names(columns, centres, bottom)
    label = f"Size, bits, weight error and output loss of {len(layers)} layers along the depth"
    return svg(label, bottom + (96 if len(columns) <= LABELLED else 40), shapes)


def group_size(layers: int) -> int:
    """How many neighbours share a column of the depth chart."""
    return max(1, -(-layers // COLUMNS))


_Plot = tuple[_Panel, list[list[Shape]]]
"""A panel, and the shapes of each column in it."""


def _sizes(columns: Sequence[_Column], centres: Sequence[float], top: float) -> _Plot:
    sizes = [max(size, 1) for one in columns for size in (one.before, one.after)]
    panel = _decades(top, "size before (ring) and after (dot), log scale", sizes, _size_tick)
    shapes: list[list[Shape]] = []
    for one, x in zip(columns, centres, strict=True):
        before, after = (panel.y(math.log10(max(size, 1))) for size in (one.before, one.after))
        ring = _mark(x, before, False)
        stem = path("stem", f"M{number(x)} {number(before)}V{number(after)}")
        shapes.append([ring] if one.before == one.after else [stem, ring, _mark(x, after, True)])
    return panel, shapes


def _size_tick(power: int) -> str:
    return size_text(10.0**power, whole=True)


def _bits(columns: Sequence[_Column], centres: Sequence[float], top: float) -> _Plot:
    most = max(one.bits for one in columns)
    high = next((bits for bits in (4, 8, 16, 32, 64) if most <= bits), most)
    ticks = tuple((high * at / 4, f"{high * at / 4:g}") for at in range(0, 5, 2 if high == 4 else 1))
    panel = _Panel(top, "bits a weight, all overheads included", 0.0, high, ticks)
    wide = min(22.0, 0.7 * (RIGHT - LEFT) / len(columns))
    shapes = [
        [box("dot", x - wide / 2, panel.y(one.bits), wide, top + PANEL - panel.y(one.bits))]
        for one, x in zip(columns, centres, strict=True)
    ]
    return panel, shapes


def _errors(columns: Sequence[_Column], centres: Sequence[float], top: float) -> _Plot:
    values = [decibels(one.error) for one in columns if 0 < one.error < math.inf]
    low = 10 * math.floor(min([0.0, *values]) / 10)
    high = max(10 * math.ceil(max([20.0, *values]) / 10), low + 20) + 10
    every = 10 * -(-(high - 10 - low) // 40)
    ticks = tuple((float(at), f"{at} dB".replace("-", "−")) for at in range(low, high - 9, every))
    panel = _Panel(top, "signal to noise in the weight, higher is better", low, high, (*ticks, (high, "exact")))
    shapes: list[list[Shape]] = []
    for one, x in zip(columns, centres, strict=True):
        exact = one.error <= 0
        value = high if exact else decibels(one.error) if one.error < math.inf else low
        shapes.append([_mark(x, panel.y(value), not exact)])
    return panel, shapes


def _losses(columns: Sequence[_Column], centres: Sequence[float], top: float) -> _Plot:
    known = [one.loss for one in columns if one.loss is not None and 0 < one.loss < math.inf]
    title = "loss at the output (noise over signal), log scale, lower is better"
    panel = _decades(top, title, known or [1.0], lambda power: f"1e{power}".replace("-", "−"))
    shapes: list[list[Shape]] = []
    for one, x in zip(columns, centres, strict=True):
        if one.loss is None or math.isnan(one.loss):
            shapes.append([])
            continue
        power = panel.low if one.loss <= 0 else panel.high if math.isinf(one.loss) else math.log10(one.loss)
        shapes.append([_mark(x, panel.y(power), one.loss > 0)])
    return panel, shapes


def _decades(top: float, title: str, values: Sequence[float], label: Callable[[int], str]) -> _Panel:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    every = -(-(high - low) // 5)
    return _Panel(top, title, low, high, tuple((float(at), label(at)) for at in range(low, high + 1, every)))


def _names(columns: Sequence[_Column], centres: Sequence[float], bottom: float) -> list[Shape]:
    """Names under the columns if there is room, or else the layers' numbers."""
    if len(columns) <= LABELLED:
        places = [f"translate({number(x + 4)} {number(bottom + 16)}) rotate(-35)" for x in centres]
        names = [short(one.rows[0].name, 20) for one in columns]
        slanted = zip(places, names, strict=True)
        return [Shape("text", {"class": "end name", "transform": place}, name) for place, name in slanted]
    every = -(-len(columns) // 20)
    shown = list(zip(columns, centres, strict=True))[::every]
    marks = [text(x, bottom + 18, str(one.first + 1), "mid") for one, x in shown]
    return [*marks, text((LEFT + RIGHT) / 2, bottom + 36, "layer, as numbered in the table", "mid along")]


def _mark(x: float, y: float, filled: bool) -> Shape:
    css, radius = ("dot", 3.5) if filled else ("ring", 3)
    return Shape("circle", {"class": css, "cx": x, "cy": y, "r": radius})
