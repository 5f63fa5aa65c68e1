"""Drawing a sweep as SVG: what is lost at every size, both as logarithms, with the law and the knee."""

from collections.abc import Iterator
from itertools import pairwise
from math import floor, log10
from string import Template

import numpy as np

from qcc.compiler.report.page.shapes import number, text_markup
from qcc.compiler.report.text import escaped, size_text
from qcc.compiler.sweep.law import KindPoint
from qcc.compiler.sweep.sweep import Sweep

WIDTH, HEIGHT = 900, 520
LEFT, RIGHT, TOP, BOTTOM = 96, 860, 84, 440
STEPS = 8  # of the law's line, between two points
ROOM = 0.04  # of an axis, beyond the ends


class _Axis:
    """From numbers to pixels, by logarithms."""

    def __init__(self, values: list[float], begin: float, end: float) -> None:
        low, high = log10(min(values)), log10(max(values))
        self._spread = max(high - low, 1e-3) * (1 + 2 * ROOM)
        self._low = low - (self._spread - (high - low)) / 2
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        """Where a number lies."""
        return self._begin + (log10(value) - self._low) / self._spread * (self._end - self._begin)

    def ticks(self) -> Iterator[float]:
        """Powers of ten on it."""
        for power in range(floor(self._low), floor(self._low + self._spread) + 1):
            if self._low <= power:
                yield 10.0**power


def draw(found: Sweep) -> str:
    """The picture, as an SVG file."""
    title = f"{found.model.name}: {found.metric} at every size"
    body = "\n".join(("", *_parts(found, title), ""))
    return _SVG.substitute(width=WIDTH, height=HEIGHT, title=escaped(title), style=_STYLE.strip(), body=body)


def _parts(found: Sweep, title: str) -> Iterator[str]:
    yield text_markup(28, 34, title, "title")
    law = "" if found.law is None else f"; law: {' '.join(found.law.lines)}"
    yield text_markup(28, 56, f"foreseen at the outputs, on up to {found.samples:,} samples{law}", "soft")
    points = [one for one in found.points if one.loss > 0]
    if not points:
        yield text_markup(LEFT, TOP + 40, "nothing is lost at any size")
        return
    curve = _law(found)
    across = _Axis([one.size_bytes for one in points], LEFT, RIGHT)
    up = _Axis([one.loss for one in points] + [loss for _, loss in curve], BOTTOM, TOP)
    yield f'<path class="axis" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>'
    for tick in up.ticks():
        y = up(tick)
        if TOP <= y <= BOTTOM:
            yield f'<path class="grid" d="M{LEFT} {number(y)}H{RIGHT}"/>' + text_markup(28, y + 4, f"{tick:g}", "soft")
    if curve:
        drawn = "L".join(f"{number(across(size))} {number(up(loss))}" for size, loss in curve)
        yield f'<path class="law" d="M{drawn}"/>'
    for at, one in enumerate(found.points):
        if one.loss <= 0:
            continue
        x, y = across(one.size_bytes), up(one.loss)
        told = f"{size_text(round(one.size_bytes))}, {one.bits:.2f} bits a weight: {one.loss:.3g}"
        mark = "knee" if at == found.knee else "point"
        yield f'<g><title>{escaped(told)}</title><circle class="{mark}" cx="{number(x)}" cy="{number(y)}" r="5"/></g>'
        yield text_markup(x - 14, BOTTOM + 22 + 16 * (at % 2), f"{one.bits:.1f} b", "soft small")
    ends = f"{size_text(round(points[0].size_bytes))} to {size_text(round(points[-1].size_bytes))}, bits a weight below"
    yield text_markup(LEFT, BOTTOM + 62, ends, "soft")


def _law(found: Sweep) -> list[tuple[float, float]]:
    """Points of the law between the ends of the curve, by sizes."""
    if found.law is None or len(found.points) < 2:
        return []
    drawn = []
    for one, other in pairwise(found.points):
        for share in np.linspace(0, 1, STEPS):
            parts = {
                name: KindPoint(part.params, part.bits + share * (other.parts[name].bits - part.bits), 0.0)
                for name, part in one.parts.items()
            }
            drawn.append((one.size_bytes + share * (other.size_bytes - one.size_bytes), found.law(parts)))
    return [(size, loss) for size, loss in drawn if loss > 0]


_SVG = Template(
    """<svg xmlns="http://www.w3.org/2000/svg" width="$width" height="$height" viewBox="0 0 $width $height" role="img">
<title>$title</title>
<style>$style</style>
<rect width="100%" height="100%" fill="#fff"/>
$body
</svg>
"""
)
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1a1a1a }
.title { font-size: 18px; font-weight: 600 } .soft { fill: #666 } .small { font-size: 11px }
.axis { fill: none; stroke: #444 } .grid { stroke: #e4e4e4 } .law { fill: none; stroke: #c98a1b; stroke-width: 2 }
.point { fill: #2b6cb0 } .knee { fill: #c0392b }
"""
