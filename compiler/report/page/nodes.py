"""The report's table of where a run's time goes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qcc.compiler.console.numbered_names import collapse
from qcc.compiler.report.text import milliseconds
from qcc.compiler.runtime.roofline import NodeTime

MOST_ROWS = 60


@dataclass(frozen=True)
class TimeRow:
    """Nodes that are alike, in one row; ``over`` is their time over their floor."""

    name: str
    op: str
    count: int
    seconds: float
    over: float
    held: str

    @property
    def time_text(self) -> str:
        """What they take."""
        return milliseconds(self.seconds)

    @property
    def over_text(self) -> str:
        """Their time over their floor; a dash where that is not known."""
        return f"{self.over:.1f}×" if math.isfinite(self.over) else "–"


@dataclass(frozen=True)
class Times:
    """Where the time goes, the longest first; of ``left`` more nodes it is not told."""

    rows: tuple[TimeRow, ...]
    seconds: float
    left: int

    @property
    def known(self) -> bool:
        """Floors are."""
        return any(row.held for row in self.rows)


def node_times(nodes: Sequence[NodeTime]) -> Times | None:
    """The table; None where no nodes were timed."""
    found = collapse(nodes, lambda one: one.node.name, lambda one: (one.node.op, one.held))
    rows = sorted((_row(name, part) for name, part in found), key=lambda row: -row.seconds)
    left = sum(row.count for row in rows[MOST_ROWS:])
    return Times(tuple(rows[:MOST_ROWS]), sum(row.seconds for row in rows), left) if rows else None


def _row(name: str, part: Sequence[NodeTime]) -> TimeRow:
    first, seconds = part[0], sum(one.node.seconds for one in part)
    floor = sum(one.floor_s for one in part)
    op = f"{first.node.op}, ours" if first.node.ours else first.node.op
    over = seconds / floor if floor else math.nan
    return TimeRow(name.removesuffix(f"/{first.node.op}"), op, len(part), seconds, over, first.held)
