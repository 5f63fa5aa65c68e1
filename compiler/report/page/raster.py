"""Pixels of a picture that we drew as SVG: the shapes that our pictures have, in the colours of the light theme.

Pillow draws lines, boxes, circles and text with a font of its own; what else SVG knows is left out.
"""

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from qcc.ir.errors import ModelError

SCALE = 2  # pixels of an SVG's pixel
FINER = 2  # drawn so much larger, then made smaller: Pillow's lines have no soft edges
_RULE = re.compile(r"([^{}]+)\{([^}]*)\}")
_STEP = re.compile(r"([MLHVv])([^MLHVv]*)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
Point = tuple[float, float]
Style = Mapping[str, str]


def png(svg: str) -> bytes:
    """A picture of ours as a PNG file, twice as wide and high in pixels as the SVG is.

    Raises:
        ModelError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        help = "`pip install 'qcc[images]'`, or name an .svg file"
        raise ModelError("Q546", "a picture of pixels takes Pillow", help) from error
    root = ElementTree.fromstring(svg)
    rules = tuple(_rules("".join(one.text or "" for one in root.iter(_tag("style")))))
    width, height = (round(float(root.get(name, "0")) * SCALE) for name in ("width", "height"))
    image = Image.new("RGB", (width * FINER, height * FINER), "white")
    _Canvas(ImageDraw.Draw(image), rules).draw(root, {})
    small, held = image.resize((width, height), Image.Resampling.LANCZOS), io.BytesIO()
    small.save(held, format="PNG", optimize=True)
    return held.getvalue()


def _tag(name: str) -> str:
    return "{http://www.w3.org/2000/svg}" + name


def _rules(style: str) -> Iterator[tuple[str, Style]]:
    """Selectors, one class or element each, with what they say; of themes the light one."""
    plain = re.sub(r"@media[^{]*\{(?:[^{}]*\{[^}]*\})*[^}]*\}", "", style)
    for selectors, body in _RULE.findall(plain):
        pairs = (one.split(":", 1) for one in body.split(";") if ":" in one)
        said = {name.strip(): value.strip() for name, value in pairs}
        for selector in selectors.split(","):
            yield selector.strip(), said


@dataclass(frozen=True)
class _Canvas:
    """What is drawn on."""

    draw_on: Any
    rules: tuple[tuple[str, Style], ...]

    def draw(self, element: ElementTree.Element, outer: Style) -> None:
        """An element and those in it."""
        name, style = element.tag.removeprefix(_tag("")), self._style(element, outer)
        numbers = {key: _length(value) for key, value in element.attrib.items()}
        if name == "rect":
            x, y, width, height = (numbers.get(one, 0.0) for one in ("x", "y", "width", "height"))
            if width and height:
                self.draw_on.rectangle(_pixels((x, y), (x + width, y + height)), fill=_colour(style, "fill"))
        elif name == "circle":
            x, y, r = (numbers[one] for one in ("cx", "cy", "r"))
            self.draw_on.ellipse(_pixels((x - r, y - r), (x + r, y + r)), fill=_colour(style, "fill"))
        elif name == "path":
            for line in _lines(element.get("d", "")):
                wide = round(_length(style.get("stroke-width", "1")) * SCALE * FINER)
                self.draw_on.line(_pixels(*line), fill=_colour(style, "stroke"), width=wide, joint="curve")
        elif name == "text":
            self._text((numbers["x"], numbers["y"]), "".join(element.itertext()), style)
        for one in element:
            self.draw(one, style)

    def _style(self, element: ElementTree.Element, outer: Style) -> Style:
        """What holds for an element: what is around it, its name's rules, then its classes'."""
        names = [element.tag.removeprefix(_tag("")), *(f".{one}" for one in element.get("class", "").split())]
        roots = [":root", *names] if names[0] == "svg" else names
        found = {**outer, **{key: value for key, value in element.attrib.items() if key in ("fill", "stroke")}}
        for wanted in roots:
            for selector, said in self.rules:
                found |= said if selector == wanted else {}
        return found

    def _text(self, at: Point, words: str, style: Style) -> None:
        from PIL import ImageFont

        size = _length(style.get("font-size", style.get("font", "13px")))
        font = ImageFont.load_default(size * SCALE * FINER)
        heavy = 1 if _length(style.get("font-weight", "400")) >= 600 else 0
        place, colour = _pixels(at)[0], _colour(style, "fill")
        self.draw_on.text(place, words, fill=colour, font=font, anchor="ls", stroke_width=heavy, stroke_fill=colour)


def _pixels(*points: Point) -> list[Point]:
    return [(x * SCALE * FINER, y * SCALE * FINER) for x, y in points]


def _length(text: str) -> float:
    found = _NUMBER.search(text)
    return float(found[0]) if found else 0.0


def _colour(style: Style, name: str) -> str | None:
    told = style.get(name, "")
    while told.startswith("var("):
        told = style.get(told[4:-1], "")
    return None if told in ("", "none") else told


def _lines(drawn: str) -> Iterator[list[Point]]:
    """The lines of a path of straight pieces."""
    line: list[Point] = []
    for letter, rest in _STEP.findall(drawn):
        values = [float(one) for one in _NUMBER.findall(rest)]
        x, y = line[-1] if line else (0.0, 0.0)
        if letter == "M":
            if len(line) > 1:
                yield line
            line = [(values[0], values[1])]
        elif letter == "L":
            line += zip(values[::2], values[1::2], strict=True)
        else:
            line.append({"H": (values[0], y), "V": (x, values[0]), "v": (x, y + values[0])}[letter])
    if len(line) > 1:
        yield line
