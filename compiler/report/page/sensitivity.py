"""The report's table of what each layer could have become."""

from collections.abc import Sequence
from dataclasses import dataclass

from qcc.compiler.report.result import Alternative

MOST_ROWS, MOST_FORMATS = 200, 12
SHADES = (0.002, 0.01, 0.05, 0.2)
"""Shares of the largest loss from which a cell is darker."""


@dataclass(frozen=True)
class HeatCell:
    """A layer in a format: what it would lose, None where it cannot be stored so."""

    loss: float | None
    css: str


@dataclass(frozen=True)
class HeatRow:
    """A layer."""

    layer: str
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True)
class Sensitivity:
    """Layers by formats, those that lose most first; of ``left`` more it is not told."""

    formats: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    left: int

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """The classes and titles of the columns; words that go without saying are left out."""
        short = (text.replace(" sym", "").replace(" scale fp16", "").replace(" channel", "") for text in self.formats)
        return (("", "layer"), *(("n", text) for text in short))


def sensitivity(alternatives: Sequence[Alternative]) -> Sensitivity | None:
    """The table; None where there is nothing to tell apart."""
    layers: dict[str, dict[str, Alternative]] = {}
    for one in alternatives:
        known = layers.setdefault(one.layer, {})
        if one.format not in known or one.chosen:  # the same format rounded in several ways
            known[one.format] = one
    formats = _formats(alternatives)
    top = max((one.loss for one in alternatives), default=0.0)
    if len(formats) < 2 or top <= 0:
        return None
    ordered = sorted(layers, key=lambda name: -max(one.loss for one in layers[name].values()))
    rows = [
        HeatRow(name, tuple(_cell(layers[name].get(text), top) for text in formats)) for name in ordered[:MOST_ROWS]
    ]
    return Sensitivity(formats, tuple(rows), max(0, len(ordered) - MOST_ROWS))


def _formats(alternatives: Sequence[Alternative]) -> tuple[str, ...]:
    """Those that stand for most layers, the smallest first."""
    sizes: dict[str, list[float]] = {}
    for one in alternatives:
        sizes.setdefault(one.format, []).append(one.size_bytes)
    common = sorted(sizes, key=lambda text: -len(sizes[text]))[:MOST_FORMATS]
    return tuple(sorted(common, key=lambda text: sum(sizes[text]) / len(sizes[text])))


def _cell(one: Alternative | None, top: float) -> HeatCell:
    if one is None:
        return HeatCell(None, "")
    shade = sum(one.loss >= share * top for share in SHADES)
    css = f"h{shade}" if shade else ""
    return HeatCell(one.loss, f"{css} chosen".strip() if one.chosen else css)
