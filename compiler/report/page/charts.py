"""The report's chart of where the bytes are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qcc.compiler.report.page.shapes import LEFT, RIGHT, Shape, box, group, number, path, svg, text
from qcc.compiler.report.result import LayerRow
from qcc.compiler.report.text import LONGEST_NAME, colour, formats_text, short, size_text

BAR, NARROWEST = 26, 6.0
NUMBER = 64  # room for a size beside a bar
LETTER = 6.3  # width of a character, about


@dataclass(frozen=True)
class _Segment:
    """A stretch of a bar."""

    css: str
    size: int
    names: tuple[str, ...]
    label: str
    inside: str = ""
    """What stands in the segment, if not its colour's name."""

    @property
    def title(self) -> str:
        first = short(self.names[0], LONGEST_NAME)
        last = f" to {short(self.names[-1], LONGEST_NAME)} ({len(self.names)} layers)" if len(self.names) > 1 else ""
        return f"{first}{last}: {self.label}, {size_text(self.size)}"


def bytes_chart(layers: Sequence[LayerRow], input_bytes: int, output_bytes: int) -> Shape:
    """Both files to one scale, coloured by format; below, the compressed one in detail, layer by layer."""
    whole = max(input_bytes, output_bytes, 1)
    room = RIGHT - LEFT - NUMBER
    before = _by_former(layers, input_bytes)
    after = _by_format(layers, output_bytes, lambda row: row.size_bytes)
    shapes: list[Shape] = []
    for y, name, size, segments in ((4, "before", input_bytes, before), (38, "after", output_bytes, after)):
        shapes.append(text(LEFT - 8, y + 17, name, "end"))
        shapes += _bar(segments, y, room * size / whole, size)
        shapes.append(text(LEFT + room * size / whole + 6, y + 17, size_text(size), "head"))
    if layers and output_bytes:
        edge, y = LEFT + room * output_bytes / whole, 38 + BAR
        shapes.append(path("zoom", f"M{LEFT} {y}L{number(edge)} {y}L{LEFT + room} {y + 22}L{LEFT} {y + 22}Z"))
        shapes.append(text(LEFT - 8, y + 44, "detail", "end"))
        shapes += _bar(_by_layer(layers, output_bytes, room), y + 22, room, output_bytes, 36)
    label = f"Bytes by format: {size_text(input_bytes)} before, {size_text(output_bytes)} after"
    return svg(label, 126 if layers and output_bytes else 70, shapes)


def _by_format(layers: Sequence[LayerRow], file_bytes: int, size: Callable[[LayerRow], int]) -> list[_Segment]:
    found: dict[str, list[LayerRow]] = {}
    for row in sorted(layers, key=lambda row: (not row.form, row.format)):
        found.setdefault(colour(row), []).append(row)
    segments = [
        _Segment(css, sum(map(size, rows)), tuple(row.name for row in rows), formats_text(rows))
        for css, rows in found.items()
    ]
    return [*segments, *_rest(segments, file_bytes)]


def _by_former(layers: Sequence[LayerRow], file_bytes: int) -> list[_Segment]:
    """What was there before: the types that weights had, in the colours of what they became."""
    found: dict[tuple[str, int], list[LayerRow]] = {}
    for row in sorted(layers, key=lambda row: (not row.form, row.format)):
        found.setdefault((colour(row), round(8 * row.original_bytes / max(row.params, 1))), []).append(row)
    segments = []
    for (css, bits), rows in found.items():
        former = f"{bits}-bit weights"
        became = f"{former}, kept" if css == "kept" else f"{former}, now {formats_text(rows)}"
        size = sum(row.original_bytes for row in rows)
        segments.append(_Segment(css, size, tuple(row.name for row in rows), became, former))
    return [*segments, *_rest(segments, file_bytes)]


def _by_layer(layers: Sequence[LayerRow], file_bytes: int, room: float) -> list[_Segment]:
    """Layers in order; neighbours too narrow to be seen share a segment."""
    segments: list[_Segment] = []
    pending: list[LayerRow] = []
    for row in layers:
        pending.append(row)
        if sum(one.size_bytes for one in pending) * room >= NARROWEST * file_bytes:
            segments.append(_merged(pending))
            pending = []
    if pending:
        segments.append(_merged(pending))
    return [*segments, *_rest(segments, file_bytes)]


def _merged(rows: Sequence[LayerRow]) -> _Segment:
    largest = max(rows, key=lambda row: row.size_bytes)
    return _Segment(
        colour(largest), sum(row.size_bytes for row in rows), tuple(row.name for row in rows), formats_text(rows)
    )


def _rest(segments: Sequence[_Segment], file_bytes: int) -> list[_Segment]:
    size = file_bytes - sum(one.size for one in segments)
    return [_Segment("rest", size, ("rest",), "graph, biases and small constants")] if size > 0 else []


def _bar(segments: Sequence[_Segment], y: float, width: float, size: int, height: int = BAR) -> Iterator[Shape]:
    """Segments side by side, no wider than ``width``, labelled where there is room."""
    scale = width / max(size, sum(one.size for one in segments), 1)
    x = float(LEFT)
    for one in segments:
        long = one.size * scale
        yield group(one.css, one.title, [box("seg", x, y, long, height), *_inside(one, x, y, long, height)])
        x += long


def _inside(one: _Segment, x: float, y: float, long: float, height: int) -> list[Shape]:
    fits = int((long - 8) / LETTER)
    ink = "on white" if one.css == "int8" else "on"
    if height == BAR:
        named = one.inside or {"kept": "as it was"}.get(one.css, one.css)
        return [text(x + 5, y + 17, named, ink)] if len(named) <= fits else []
    name = one.names[0] if len(one.names) == 1 else f"{len(one.names)} layers"
    grid = one.label.split(" ")[0] if one.css != "rest" else size_text(one.size)
    if len(grid) > fits:
        return []
    if len(name) > fits < 9:
        return [text(x + 5, y + 22, grid, ink)]
    return [text(x + 5, y + 15, short(name, fits), ink), text(x + 5, y + 29, grid, ink)]
