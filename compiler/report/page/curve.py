"""The report's chart of quality against size."""

import math

from qcc.compiler.metrics.texts import ratio_text
from qcc.compiler.report.page.shapes import LEFT, RIGHT, Shape, group, number, path, svg, text
from qcc.compiler.report.result import Result
from qcc.compiler.report.text import size_text

TOP, HEIGHT, TICKS = 24, 220, 6
LEAST_SHARE = 1e-5
"""Of the largest loss, below which points are drawn at the bottom: they lose nothing."""


def curve_chart(result: Result) -> Shape:
    """The least loss for every size, and where this file stands."""
    found = result.allocation
    assert found is not None and len(found.frontier) > 1
    here = (float(result.output_bytes), found.predicted_error)
    points = [*found.frontier, *([(here[0], here[1])] if here[1] is not None else [])]
    high = max(loss for _, loss in points)
    floor = max(LEAST_SHARE * high, min((loss for _, loss in points if loss > 0), default=1.0))
    plot = _Plot(min(size for size, _ in points), max(size for size, _ in points), floor, max(high, 10 * floor))
    line = "".join(f"{'L' if at else 'M'}{plot.place(*one)}" for at, one in enumerate(found.frontier))
    corners = [_dot(plot, size, loss, "corner", 3) for size, loss in found.frontier]
    mine = [] if here[1] is None else [_dot(plot, here[0], here[1], "here", 7), *_label(plot, here[0], here[1])]
    label = f"Least loss against size, from {size_text(plot.left)} to {size_text(plot.right)}"
    return svg(label, TOP + HEIGHT + 62, [*plot.frame(), path("curve", line), *corners, *mine])


class _Plot:
    """Sizes from left to right, losses on a log scale from the bottom up."""

    def __init__(self, left: float, right: float, low: float, high: float) -> None:
        self.left, self.right = left, max(right, left * 1.001 + 1)
        self.low, self.high = math.floor(math.log10(low)), math.ceil(math.log10(high))

    def x(self, size: float) -> float:
        return LEFT + (RIGHT - LEFT - 60) * (size - self.left) / (self.right - self.left) + 20

    def y(self, loss: float) -> float:
        power = math.log10(loss) if loss > 0 else self.low
        return TOP + HEIGHT * (1 - (min(max(power, self.low), self.high) - self.low) / (self.high - self.low))

    def place(self, size: float, loss: float) -> str:
        return f"{number(self.x(size))} {number(self.y(loss))}"

    def frame(self) -> list[Shape]:
        shapes = [text(LEFT, TOP - 10, "loss at the outputs, log scale, lower is better", "head")]
        every = -(-(self.high - self.low) // TICKS)
        for power in range(self.low, self.high + 1, every):
            y = self.y(10.0**power)
            shapes += [
                path("axis", f"M{LEFT} {number(y)}H{RIGHT}"),
                text(LEFT - 8, y + 4, ratio_text(10.0**power), "end tick"),
            ]
        for at in range(TICKS):
            size = self.left + (self.right - self.left) * at / (TICKS - 1)
            shapes.append(text(self.x(size), TOP + HEIGHT + 26, size_text(size), "mid"))
        return [*shapes, text((LEFT + RIGHT) / 2, TOP + HEIGHT + 52, "size of the file", "mid along")]


def _dot(plot: _Plot, size: float, loss: float, css: str, radius: float) -> Shape:
    circle = Shape("circle", {"class": css, "cx": plot.x(size), "cy": plot.y(loss), "r": radius})
    return group("", f"{size_text(size)}, loss {ratio_text(loss)}", [circle])


def _label(plot: _Plot, size: float, loss: float) -> list[Shape]:
    """Beside the dot, on the side where there is room."""
    x, y = plot.x(size), plot.y(loss)
    right = x > (LEFT + RIGHT) / 2
    css = "head end" if right else "head"
    return [text(x - 12 if right else x + 12, max(TOP + 12, y - 8), f"this file, {size_text(size)}", css)]
