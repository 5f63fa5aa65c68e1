"""How the HTML report spells names and quantities."""

import html
import math
import re
from collections.abc import Iterable

from markupsafe import Markup

from qcc.compiler.metrics.find import judged
from qcc.compiler.report.result import LayerRow, Result
from qcc.dsl.diagnostics.excerpt import cells, escape

LONGEST_NAME = 48
"""Of a name where it is not the subject."""

_GRIDS = frozenset(f"int{bits}" for bits in range(2, 9))
_PLACE = re.compile(r"(^|, )(?!presets/)[^,\n]*[/\\]([^/\\\n]+:\d+:\d+)$")
MISLEADS = "random inputs mislead both ways: on real ones the model may lose less, or more (`--data FILE.npz`)"


def escaped(text: object) -> str:
    """A text as HTML or SVG holds it; characters that would not show are spelled out."""
    return html.escape(escape(str(text)))


def spelled_out(value: object) -> object:
    """What a template shows of a value: characters that would not show are spelled out, markup is left as it is."""
    return value if hasattr(value, "__html__") else escape(str(value))


def breakable(name: str) -> Markup:
    """A name that breaks after a dot or a slash if it is long, and after an underscore where there is neither."""
    parts = re.findall(r".{11,31}?[./]|.{11,31}_|.+", name, re.DOTALL)
    return Markup("<wbr/>").join(escape(part) for part in parts)


def short(text: str, length: int) -> str:
    """A name, spelled out and cut to a width in letters; its end tells more than its beginning."""
    shown = escape(text)
    if cells(shown) <= length:
        return shown
    tail = shown[-length:]
    while tail and cells(tail) >= length:
        tail = tail[1:]
    return f"…{tail}"


def colour(row: LayerRow) -> str:
    """The CSS class of a layer's colour: its element grid, the same in every report."""
    if not row.form:
        return "kept"
    grid = row.format.split(" ")[0]
    return grid if grid in _GRIDS else "other"


def formats_text(rows: Iterable[LayerRow]) -> str:
    """The formats of some layers, the first three by name."""
    names = list(dict.fromkeys(row.format for row in rows))
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def size_text(size_bytes: float, *, whole: bool = False) -> str:
    """A size in three digits, or in a ``whole`` number of its unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= 0.9995 * factor:
            amount = size_bytes / factor
            digits = 0 if whole else max(0, 3 - len(str(int(amount + 0.005))))
            return f"{amount:.{digits}f} {unit}"
    return f"{size_bytes:.0f} B"


def decibels(ratio: float) -> float:
    """A finite ratio of noise to signal, above zero, as a signal-to-noise ratio."""
    return -10 * math.log10(ratio)


def power_text(ratio: float) -> str:
    """A ratio of noise to signal, as a signal-to-noise ratio in dB."""
    if ratio <= 0:
        return "exact"
    return sqnr_text(decibels(ratio) if math.isfinite(ratio) else -ratio)


def sqnr_text(ratio_db: float) -> str:
    """A signal-to-noise ratio."""
    return judged()["sqnr"].text(ratio_db)


def cosine_text(cosine: float) -> str:
    """A cosine in six decimals."""
    return judged()["cosine"].text(cosine)


def worst_first(value: float) -> tuple[bool, float]:
    """A key that sorts values of which more is better, those that are not numbers before all."""
    return (not math.isnan(value), value)


def milliseconds(seconds: float) -> str:
    """A time in three digits."""
    return f"{seconds * 1e3:.3g} ms"


def file_names(text: str, result: Result) -> str:
    """A text without the folders of the machine: of the result's files, and of a place in a policy."""
    files = {result.source, result.output, result.lock, result.report, result.kernels or result.output}
    for path in sorted(files, key=lambda one: (-len(str(one)), one)):
        for spelled in (str(path.absolute()), str(path)):
            text = text.replace(spelled, path.name)
    return _PLACE.sub(r"\1\2", text)
