"""Drawing the axes as SVG: layers as boxes, groups of channels as coloured lanes that join them."""

from collections.abc import Iterator
from string import Template

from qcc.compiler.console.numbered_names import patterns
from qcc.compiler.inspect.console import common_name, freedom_text
from qcc.compiler.inspect.layout import AFTER, PITCH, WIRE, DrawnRow, Frame, Lane, Layout, layout
from qcc.compiler.inspect.survey import Side, Survey, WeightChannels
from qcc.compiler.report.page.shapes import number, text_markup
from qcc.compiler.report.text import escaped, short
from qcc.ir.axes.axes import Action, Group

MARGIN, HEAD, FOOT = 28, 118, 24
BOX, BOX_HEIGHT, GAP = 376, 38, 46
"""A layer's box, and how far its nearest lanes are from it."""

LINE, LEAST = 22, 980  # of the table below: the height of a line, and the width
LETTER = 7.4  # width of a character of the legend, about
COLOURS = 8
_FITS, _DETAIL_FITS, _NAME_FITS = 43, 54, 58  # letters
_COLUMNS = (("channels", 40), ("group", 154), ("permute", 572), ("scale", 656), ("rotate", 796), ("select", 910))


def draw(survey: Survey, title: str, html: bool = False) -> str:
    """The picture, as an SVG file or as an HTML file around it."""
    made = layout(survey)
    room = (made.columns(left=True) * PITCH, made.columns(left=False) * PITCH)
    drawn = 2 * (MARGIN + GAP) + sum(room) + BOX
    width = max(drawn, LEAST)
    picture = _Picture(survey, made, MARGIN + GAP + room[0] + (width - drawn) / 2, width)
    height = HEAD + made.height + LINE * (len(made.lanes) + 2.5) + FOOT
    body = "\n".join(("", *picture.parts(title), ""))
    style = _STYLE.strip()
    svg = _SVG.substitute(width=number(width), height=number(height), title=escaped(title), style=style, body=body)
    return _HTML.substitute(title=escaped(title), svg=svg) if html else svg


class _Picture:
    """Draws a layout; ``left`` is the edge of the boxes."""

    def __init__(self, survey: Survey, made: Layout, left: float, width: float) -> None:
        self._survey, self._made, self._left, self._width = survey, made, left, width
        ordered = sorted(made.lanes, key=lambda lane: (not lane.left, lane.start, lane.column))
        free = [lane for lane in ordered if not lane.channels[0].group.fixed]
        self._colours = {id(lane): f"c{at % COLOURS}" for at, lane in enumerate(free)}
        self._lanes = {id(lane.channels[0].group): lane for lane in made.lanes}
        self._ordered = ordered

    def parts(self, title: str) -> Iterator[str]:
        """Everything, from behind to before."""
        yield from self._heading(title)
        yield f'<g transform="translate(0 {HEAD})">'
        yield from (self._frame(frame) for frame in self._made.frames)
        yield from (wire for row in self._made.rows for wire in self._wires(row))
        yield from (self._band(lane) for lane in self._made.lanes)
        yield from (mark for row in self._made.rows for mark in self._marks(row))
        yield from (self._box(row) for row in self._made.rows)
        yield "</g>"
        yield from self._table(HEAD + self._made.height + 2 * LINE)

    def _heading(self, title: str) -> Iterator[str]:
        groups = [one.group for one in self._survey.channels]
        free = sum(not group.fixed for group in groups)
        yield text_markup(MARGIN, 34, f"{title}: which channels are the same", "title")
        words = (
            f"{len(self._survey.weights):,} weights share {len(groups):,} groups of channels; {free:,} may be permuted"
        )
        yield text_markup(MARGIN, 56, words, "soft")
        y, marks = (
            84,
            (
                (f'<rect class="lane c0" x="0" y="{84 - 10}" width="26" height="11" rx="3"/>', 34, "may be permuted"),
                (f'<rect class="lane fixed" x="0" y="{84 - 10}" width="26" height="11" rx="3"/>', 34, "fixed"),
                (f'<circle class="mark c0" cx="6" cy="{84 - 4}" r="5"/>', 18, "the layer reads them"),
                (f'<path class="mark c0" d="{_triangle(6, 84 - 4, 1)}"/>', 18, "the layer writes them"),
                ("", 0, "several lanes at one end: free in blocks only"),
            ),
        )
        x = 0.0
        for shape, gap, words in marks:
            yield f'<g transform="translate({number(MARGIN + x)} 0)">{shape}{text_markup(gap, y, words, "soft")}</g>'
            x += gap + LETTER * len(words) + 22

    def _x(self, lane: Lane) -> float:
        away = GAP + PITCH * lane.column
        return self._left - away if lane.left else self._left + BOX + away

    def _frame(self, frame: Frame) -> str:
        rows = self._made.rows[frame.start : frame.stop]
        top, bottom = rows[0].y - 54, rows[-1].y + 32
        box = (
            f'<rect class="frame" x="{MARGIN - 14}" y="{number(top)}" width="{number(self._width - 2 * MARGIN + 28)}" '
            f'height="{number(bottom - top)}" rx="8"/>'
        )
        words = f"× {frame.count}" + (f", {frame.numbers}" if frame.numbers else "")
        return box + text_markup(self._left, top + 21, words, "times")

    def _band(self, lane: Lane) -> str:
        group, x = lane.channels[0].group, self._x(lane)
        thick = min(4 + round(1.3 * group.size.bit_length()), 20)
        css = "fixed" if group.fixed else self._colours[id(lane)]
        shape = (
            f'<rect class="lane {css}" x="{number(x - thick / 2)}" y="{number(lane.start)}" width="{thick}" '
            f'height="{number(lane.stop - lane.start)}" rx="3"/>'
        )
        tag = text_markup(x, lane.start - AFTER, f"{group.size}", "tag")
        return f"<g><title>{escaped(self._told(lane.channels[0]))}</title>{shape}{tag}</g>"

    def _told(self, one: WeightChannels) -> str:
        lines = [f"{common_name(one)}: {one.size_text}"]
        return "\n".join([*lines, *(f"{each.value}: {freedom_text(self._survey, one, each)}" for each in Action)])

    def _ends(self, row: DrawnRow) -> Iterator[tuple[bool, bool, float, list[Lane]]]:
        """Whether a layer writes, at which of its ends, how high, and which lanes are there."""
        for side, writes in ((row.box.reads, False), (row.box.writes, True)):
            lanes = [self._lanes[id(group)] for group in side.groups if id(group) in self._lanes]
            for left in (True, False):
                yield writes, left, row.y + (WIRE if writes else -WIRE), [lane for lane in lanes if lane.left is left]

    def _wires(self, row: DrawnRow) -> Iterator[str]:
        for writes, left, y, lanes in self._ends(row):
            edge = self._left if left else self._left + BOX
            if lanes:
                far = max((self._x(lane) for lane in lanes), key=lambda x: abs(x - edge))
                css = self._colours.get(id(lanes[0]), "fixed") if len(lanes) == 1 else "many"
                yield f'<path class="wire {css}" d="M{number(edge)} {number(y)}H{number(far)}"/>'
                way = 1 if left else -1
                if not writes:
                    yield f'<path class="head {css}" d="{_triangle(edge - 4 * way, y, way)}"/>'
        for side, left, y in ((row.box.reads, True, row.y - WIRE), (row.box.writes, False, row.y + WIRE)):
            if side.size > 1 and not any(id(group) in self._lanes for group in side.groups):
                x = self._left - 26 if left else self._left + BOX
                reason = escaped(self._survey.plain(side.reason))
                yield f'<rect class="lane fixed" x="{number(x)}" y="{number(y - 4)}" width="26" height="8">' + (
                    f"<title>{side.size}, fixed: {reason}</title></rect>"
                )

    def _marks(self, row: DrawnRow) -> Iterator[str]:
        for writes, left, y, lanes in self._ends(row):
            for lane in lanes:
                x, css = self._x(lane), self._colours.get(id(lane), "fixed")
                if writes:
                    yield f'<path class="mark {css}" d="{_triangle(x, y, -1 if left else 1)}"/>'
                else:
                    yield f'<circle class="mark {css}" cx="{number(x)}" cy="{number(y)}" r="5"/>'

    def _box(self, row: DrawnRow) -> str:
        box, y = row.box, row.y
        names = patterns(row.names)
        name = names[0] if len(names) == 1 else f"{row.names[0]}, ..."
        kind = " ".join(
            filter(None, (box.kind, box.window, f"in {box.groups} groups" * (box.groups > 1), "(tied)" * box.tied))
        )
        detail = f"{kind} · {box.reads.text} → {box.writes.text}"
        if len(detail) > _DETAIL_FITS:
            detail = f"{kind} · {box.reads.size} → {box.writes.size}"
        shape = (
            f'<rect class="box" x="{number(self._left)}" y="{number(y - BOX_HEIGHT / 2)}" width="{BOX}" '
            f'height="{BOX_HEIGHT}" rx="5"/>'
        )
        words = text_markup(self._left + 12, y - 3, short(name, _FITS), "name")
        words += text_markup(self._left + 12, y + 12, detail.replace(" x ", " × "), "soft small")
        told = "\n".join(
            [name, *(f"{part}: {self._side(side)}" for part, side in (("in", box.reads), ("out", box.writes)))]
        )
        return f"<g><title>{escaped(told)}</title>{shape}{words}</g>"

    def _side(self, side: Side) -> str:
        return f"{side.text}, {side.freedom}" + (f": {self._survey.plain(side.reason)}" if side.reason else "")

    def _table(self, y: float) -> Iterator[str]:
        for title, x in _COLUMNS:
            yield text_markup(MARGIN + x, y, title, "head small")
        for number_, lane in enumerate(self._ordered):
            one, at = lane.channels[0], y + LINE * (number_ + 1)
            css = "fixed" if one.group.fixed else self._colours[id(lane)]
            swatch = f'<rect class="lane {css}" x="{MARGIN}" y="{number(at - 10)}" width="26" height="11" rx="3"/>'
            names = patterns(common_name(each) for each in lane.channels)
            name = names[0] if len(names) == 1 else f"{names[0]}, ..."
            cells = (one.size_text, short(name, _NAME_FITS), *(_words(one.of(action)) for action in Action))
            line = "".join(
                text_markup(MARGIN + x, at, cell, "small") for (_, x), cell in zip(_COLUMNS, cells, strict=True)
            )
            yield f"<g><title>{escaped(self._told(one))}</title>{swatch}{line}</g>"


def _words(groups: tuple[Group, ...]) -> str:
    """What may be done, in a word or two."""
    free = [group for group in groups if not group.fixed]
    if not free:
        return "no"
    words = {"positive" if one.positive else "keeps mean" if one.keeps_mean else "free" for one in free}
    return " or ".join(sorted(words)) + (f", {len(free)} of {len(groups)}" if len(free) < len(groups) else "")


def _triangle(x: float, y: float, way: int) -> str:
    """An arrow's head that points right (1) or left (-1)."""
    back, tip = number(x - 4 * way), number(x + 5 * way)
    return f"M{back} {number(y - 5)}L{tip} {number(y)}L{back} {number(y + 5)}Z"


_STYLE = """
:root {
  --page: #fff; --text: #1b1f24; --soft: #57606a; --line: #c4cbd3; --panel: #f3f5f8; --box: #fff; --kept: #a3abb5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --text: #e4e8ec; --soft: #9aa4af; --line: #434b55; --panel: #1c2127; --box: #22282f;
    --kept: #6b7480;
  }
}
svg { font: 13px system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
text { fill: var(--text); }
.title { font-size: 19px; font-weight: 650; }
.name { font-weight: 600; }
.soft { fill: var(--soft); }
.small { font-size: 12px; }
.head.small { fill: var(--soft); font-weight: 600; }
.times { fill: var(--soft); font-weight: 600; }
.tag { font-size: 10.5px; text-anchor: middle; fill: var(--soft); }
.page { fill: var(--page); }
.frame { fill: var(--panel); stroke: var(--line); stroke-dasharray: 5 4; }
.box { fill: var(--box); stroke: var(--line); }
.c0 { --own: #0072b2; } .c1 { --own: #d55e00; } .c2 { --own: #009e73; } .c3 { --own: #cc79a7; }
.c4 { --own: #e69f00; } .c5 { --own: #7a5fb5; } .c6 { --own: #56b4e9; } .c7 { --own: #a08a00; }
.fixed, .many { --own: var(--soft); }
.lane { fill: var(--own); }
.lane.fixed { fill: url(#hatch); }
.wire { stroke: var(--own); stroke-width: 2; }
path.head { fill: var(--own); }
.mark { fill: var(--page); stroke: var(--own); stroke-width: 2; }
rect.hatch { fill: var(--panel); }
path.hatch { stroke: var(--kept); stroke-width: 5; }
"""
_SVG = Template(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" width="$width" height="$height" '
    'role="img" aria-label="WeightChannels of $title">\n<style>\n$style\n</style>\n'
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatch" width="6" height="6"/><path class="hatch" d="M0 0V6"/></pattern></defs>\n'
    '<rect class="page" width="$width" height="$height"/>$body</svg>\n'
)
_HTML = Template(
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
    '<meta name="color-scheme" content="light dark"/>\n<title>$title: channels</title>\n'
    "<style>body { margin: 0; background: #fff; }\n"
    "@media (prefers-color-scheme: dark) { body { background: #14171b; } }\n"
    "svg { display: block; margin: auto; max-width: 100%; height: auto; }</style>\n"
    "</head>\n<body>\n$svg</body>\n</html>\n"
)
