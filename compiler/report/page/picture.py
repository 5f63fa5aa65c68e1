"""A picture of what is left of a weight: a small square for each part of it, the darker the more is stored."""

from qcc.compiler.report.page.shapes import Attributes, Shape
from qcc.passes.contract.holes import FULL, Holes

CELL = 3  # pixels


def picture(holes: Holes) -> Shape:
    """Outputs downwards, inputs to the right; neighbours that are alike in a row are one."""
    inside: list[Shape] = []
    for down, row in enumerate(holes.picture):
        start = 0
        for at in range(1, len(row) + 1):
            if at < len(row) and row[at] == row[start]:
                continue
            if row[start] != "0":
                x, width, shade = start * CELL, (at - start) * CELL, round(int(row[start]) / FULL, 2)
                place: Attributes = {"x": x, "y": down * CELL, "width": width, "height": CELL, "opacity": shade}
                inside.append(Shape("rect", place))
            start = at
    width, height = CELL * max(map(len, holes.picture)), CELL * len(holes.picture)
    size = f"0 0 {width} {height}"
    box: Attributes = {"width": width, "height": height, "viewBox": size, "class": "pattern", "role": "img"}
    return Shape("svg", box, inside=inside)
