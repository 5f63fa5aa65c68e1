"""The report's pictures of how the numbers of weights lie, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass

from qcc.compiler.report.page.shapes import Attributes, Shape, number
from qcc.compiler.report.result import LayerRow
from qcc.passes.contract.spread import Spread

MOST_ROWS = 60
WIDTH, HEIGHT = 192, 48  # pixels
PEAK = 1.5  # of what was there before: a code that stands for many numbers may rise above its bin


@dataclass(frozen=True)
class Histograms:
    """Weights with their pictures, those that rounding changed most first; of ``left`` more it is not told."""

    rows: tuple[tuple[LayerRow, Shape], ...]
    left: int


def histograms(layers: Sequence[LayerRow]) -> Histograms | None:
    """The table; None where no weight was stored anew."""
    found = sorted((row for row in layers if row.spread is not None), key=lambda row: -row.error)
    rows = tuple((row, drawing(row.spread)) for row in found[:MOST_ROWS] if row.spread is not None)
    return Histograms(rows, max(0, len(found) - MOST_ROWS)) if rows else None


def drawing(spread: Spread) -> Shape:
    """The weight's numbers as an area, what is decoded as a line over it; both are cut off at the top."""
    top = PEAK * max(spread.before)
    area = Shape("path", {"class": "was", "d": f"{_steps(spread.before, top)}V{HEIGHT}Z"})
    line = Shape("path", {"class": "now", "d": _steps(spread.after, top)})
    size = f"0 0 {WIDTH} {HEIGHT}"
    box: Attributes = {"width": WIDTH, "height": HEIGHT, "viewBox": size, "class": "spread", "role": "img"}
    return Shape("svg", box, inside=(Shape("title", {}, f"from {-spread.limit:.3g} to {spread.limit:.3g}"), area, line))


def _steps(shares: Sequence[float], top: float) -> str:
    """The outline of a histogram, from the left end of the floor to the right end at the height of the last bin."""
    wide = WIDTH / len(shares)
    drawn = [f"M0 {HEIGHT}"]
    for share in shares:
        drawn.append(f"V{number(HEIGHT * (1 - min(share / top, 1)))}h{number(wide)}")
    return "".join(drawn)
