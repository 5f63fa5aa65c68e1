"""The report's curves of quality and time: what rounds of exchanges took off a layer's error, and how long they did."""

from qcc.compiler.report.page.shapes import Attributes, Shape, number
from qcc.ir.encoding.swaps import Curve

WIDTH, HEIGHT, DOT = 144, 48, 1.5  # pixels


def effort_curve(curve: Curve) -> Shape | None:
    """Seconds to the right, the error upwards from zero; None where nothing was exchanged."""
    if len(curve) < 2:
        return None
    seconds, most = curve[-1][0] or 1.0, max(error for _, error in curve) or 1.0
    places = [(WIDTH * at / seconds, HEIGHT * (1 - error / most)) for at, error in curve]
    line = "L".join(f"{number(x)} {number(y)}" for x, y in places)
    dots = [Shape("circle", {"cx": round(x, 1), "cy": round(y, 1), "r": DOT}) for x, y in places]
    first, last = curve[0][1], curve[-1][1]
    title = f"{len(curve) - 1} rounds in {curve[-1][0]:.2g} s: {first:.4g} to {last:.4g}"
    view = f"0 -2 {WIDTH} {HEIGHT + 4}"
    box: Attributes = {"width": WIDTH, "height": HEIGHT, "viewBox": view, "class": "effort", "role": "img"}
    inside = Shape("title", {}, title), Shape("path", {"d": f"M{line}"}), *dots
    return Shape("svg", box, inside=inside)
