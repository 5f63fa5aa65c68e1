"""Shapes of a drawing in SVG, which know their markup: what a page shows is text wherever it comes from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qcc.compiler.report.text import escaped

WIDTH, LEFT, RIGHT = 1000, 64, 992
"""The drawing's width, and where its plots begin and end."""

Attributes = Mapping[str, str | float]


@dataclass(frozen=True)
class Shape:
    """An element: its name, its attributes, and the words, which may be in lines, or the shapes in it."""

    tag: str
    attributes: Attributes
    words: str = ""
    inside: Sequence["Shape"] = ()

    def __str__(self) -> str:
        """The markup."""
        given = "".join(f' {name}="{_value(value)}"' for name, value in self.attributes.items() if value != "")
        inner = "\n".join(map(escaped, self.words.split("\n"))) + "".join(map(str, self.inside))
        return f"<{self.tag}{given}>{inner}</{self.tag}>" if inner else f"<{self.tag}{given}/>"

    def __html__(self) -> str:
        """The markup, for templates."""
        return str(self)


def _value(value: str | float) -> str:
    return escaped(value) if isinstance(value, str) else number(value)


def text(x: float, y: float, words: str, css: str = "") -> Shape:
    """A line of text; ``css`` names its classes."""
    return Shape("text", {"class": css, "x": x, "y": y}, words)


def text_markup(x: float, y: float, words: str, css: str = "") -> str:
    """The markup of a line of text."""
    return str(text(x, y, words, css))


def path(css: str, drawn: str) -> Shape:
    """A line."""
    return Shape("path", {"class": css, "d": drawn})


def box(css: str, x: float, y: float, width: float, height: float) -> Shape:
    """A rectangle."""
    return Shape("rect", {"class": css, "x": x, "y": y, "width": width, "height": height})


def group(css: str, title: str, shapes: Iterable[Shape]) -> Shape:
    """Shapes of one colour, with what a pointer over them tells."""
    return Shape("g", {"class": css}, inside=[Shape("title", {}, title), *shapes])


def svg(label: str, height: float, shapes: Sequence[Shape]) -> Shape:
    """A drawing that scales with the page; ``label`` is what a screen reader says."""
    return Shape("svg", {"viewBox": f"0 0 {WIDTH} {number(height)}", "role": "img", "aria-label": label}, inside=shapes)


def number(value: float) -> str:
    """A coordinate, no longer than it need be."""
    return f"{value:.1f}".removesuffix(".0")
