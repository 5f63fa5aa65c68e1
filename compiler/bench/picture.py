"""Drawing a benchmark as SVG: a panel a setting, a bar a model, with its quartiles."""

from collections.abc import Iterator
from string import Template

from qcc.compiler.bench.bench import Bench, Setting, setting_text
from qcc.compiler.bench.console import ms_text, place_text
from qcc.compiler.report.page.shapes import number, text_markup
from qcc.compiler.report.text import escaped, short, size_text

WIDTH, MARGIN = 900, 28
LEFT, RIGHT = 300, 680
"""Where the bars begin, and where the longest ends."""

HEAD, PANEL, ROW, BAR, FOOT = 82, 40, 30, 18, 24
COLOURS = 8
_LETTERS = 36  # of a model's name


def draw(result: Bench) -> str:
    """The picture, as an SVG file."""
    height = HEAD + len(result.settings) * (PANEL + ROW * len(result.entries)) + FOOT
    title = f"{result.entries[0].model.name}: time of a run"
    body = "\n".join(("", *_parts(result, title), ""))
    return _SVG.substitute(width=WIDTH, height=height, title=escaped(title), style=_STYLE.strip(), body=body)


def _parts(result: Bench, title: str) -> Iterator[str]:
    yield text_markup(MARGIN, 34, title, "title")
    yield text_markup(MARGIN, 56, f"{place_text()}; medians and quartiles; shorter is faster", "soft")
    y = float(HEAD)
    for setting in result.settings:
        yield text_markup(MARGIN, y + 22, setting_text(setting.batch, setting.threads), "name")
        yield text_markup(RIGHT + 24, y + 22, "median", "soft small")
        y += PANEL
        longest = max(setting.quartiles(at)[2] for at in range(len(result.entries)))
        for at in range(len(result.entries)):
            yield _bar(result, setting, at, y, (RIGHT - LEFT) / longest)
            y += ROW


def _bar(result: Bench, setting: Setting, at: int, y: float, scale: float) -> str:
    """A model's name, bar, quartiles and time; ``scale`` is in pixels a second."""
    entry, (low, middle, high) = result.entries[at], setting.quartiles(at)
    base, ends = y + BAR - 5, [LEFT + scale * seconds for seconds in (low, middle, high)]
    times = f"{ms_text(middle)} ms, quartiles {ms_text(low)} to {ms_text(high)}"
    told = f"{entry.label}, {size_text(entry.size_bytes)}: {times}"
    shapes = [
        text_markup(MARGIN, base, short(entry.label, _LETTERS)),
        f'<rect class="bar c{at % COLOURS}" x="{LEFT}" y="{number(y)}" width="{number(ends[1] - LEFT)}" '
        f'height="{BAR}" rx="3"/>',
        f'<path class="spread" d="M{number(ends[0])} {number(y + BAR / 2)}H{number(ends[2])}'
        f'M{number(ends[0])} {number(y + 5)}v{BAR - 10}M{number(ends[2])} {number(y + 5)}v{BAR - 10}"/>',
        text_markup(RIGHT + 24, base, f"{ms_text(middle)} ms", "name"),
    ]
    if at:
        shapes.append(text_markup(RIGHT + 124, base, f"{setting.ratio(at).median:.2f}x the time", "soft"))
    return f"<g><title>{escaped(told)}</title>{''.join(shapes)}</g>"


_STYLE = """
:root { --page: #fff; --text: #1b1f24; --soft: #57606a; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --text: #e4e8ec; --soft: #9aa4af; } }
svg { font: 13px system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
text { fill: var(--text); }
.title { font-size: 19px; font-weight: 650; }
.name { font-weight: 600; }
.soft { fill: var(--soft); }
.small { font-size: 12px; }
.page { fill: var(--page); }
.c0 { --own: #8a94a0; } .c1 { --own: #0072b2; } .c2 { --own: #d55e00; } .c3 { --own: #009e73; }
.c4 { --own: #cc79a7; } .c5 { --own: #e69f00; } .c6 { --own: #7a5fb5; } .c7 { --own: #56b4e9; }
.bar { fill: var(--own); }
.spread { stroke: var(--text); stroke-width: 1.5; fill: none; }
"""
_SVG = Template(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" width="$width" height="$height" '
    'role="img" aria-label="$title">\n<style>\n$style\n</style>\n'
    '<rect class="page" width="$width" height="$height"/>$body</svg>\n'
)
