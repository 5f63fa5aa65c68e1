"""Tables whose rows stay where they are looked up often, and are one where not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32
from qcc.ir.encoding.format import Limits, Share, check_share, least_share, percent, quoted
from qcc.ir.encoding.formats.composed.merged import MergedRows, Merging, Tied
from qcc.ir.encoding.tables.lookups import CALIBRATION, Lookups, lookups_of, times_of

MOST = 1e15


@dataclass(frozen=True)
class OftenAsked(Merging):
    """Rows that are looked up often stay; all others become one, the last.

    Args:
        keep: the share of rows that are left; 0 where ``least`` says it.
        least: of the lookups of a row that stays.
        seen: what tells how often rows are looked up.
        within: how long before the last of all interactions the last lookup of a row that stays was, at most.
    """

    keep: float = 0.0
    least: int = 0
    seen: str = CALIBRATION
    within: float | None = None

    def __post_init__(self) -> None:
        if bool(self.keep) == bool(self.least):
            raise ValueError("`frequent` takes a share, as in `10%`, or the least lookups, as in `least = 5`")
        if self.keep:
            check_share(self.keep)
        if self.within is not None and not self.seen:
            raise ValueError("`within` needs a file of interactions that says when rows were looked up: `seen = ...`")

    @property
    def text(self) -> str:
        """By its arguments."""
        size = f"keep = {percent(self.keep)}" if self.keep else f"least = {self.least}"
        seen = f", seen = {quoted(self.seen)}" if self.seen else ""
        within = "" if self.within is None else f", within = {self.within:.17g}"
        return f"frequent({size}{seen}{within}"

    def count(self, rows: int) -> int:
        """The share of so many; about a third where lookups say it."""
        return max(round(self.keep * rows), 1) if self.keep else max(rows // 3, 1)

    @property
    def open(self) -> bool:
        """Where lookups say it."""
        return not self.keep or self.within is not None

    @property
    def least_left(self) -> float:
        """As asked, rounded; nothing where lookups say it."""
        return 0.0 if self.open else least_share(self.keep)

    @property
    def sources(self) -> frozenset[str]:
        """What tells how often rows are looked up."""
        return frozenset((self.seen,))

    def check_lookups(self, lookups: Mapping[str, Lookups]) -> None:
        """See that times are told where they are needed."""
        if self.within is not None:
            times_of(lookups, self.seen, first=False)

    def labels(self, matrix: np.ndarray, lookups: Mapping[str, Lookups]) -> np.ndarray:
        """A row of its own for each that stays, in their order, and one for all others."""
        counts = lookups_of(lookups, self.seen).counts
        stays = counts >= max(self.least, 0)
        if self.within is not None:
            times = times_of(lookups, self.seen, first=False)
            stays &= times >= times.max(initial=-np.inf) - self.within
        most = self.count(len(counts)) if self.keep else len(counts)
        if int(stays.sum()) > most or (most < len(counts) and int(stays.sum()) == most):
            often = np.argsort(np.where(stays, -counts, 1), kind="stable")
            stays[often[most - 1 :]] = False
        found = np.cumsum(stays) - 1
        found[~stays] = int(stays.sum())
        return found

    def warning(self, rows: int, count: int, lookups: Mapping[str, Lookups]) -> str:
        """How many rows are the same from now on, and how many of those nothing ever looked up."""
        if count >= rows:
            return ""
        one = rows - count + 1
        unseen = min(one, int((lookups_of(lookups, self.seen).counts == 0).sum()))  # the first to go
        told = f"`{self.seen}`" if self.seen else "calibration data"
        return f"{one:,} of {rows:,} rows are one now, {unseen:,} of which {told} never looks up"


@dataclass(frozen=True)
class FrequentRows(MergedRows):
    """The rows that are looked up often, each by itself, and one row for all others, which is their mean.

    Rows that stay are what they were, to the bit where they are stored as they are. How often rows are looked up is
    told by calibration data, or by a file of interactions. An id of a row that went is still one: it gets the row that
    all others share. `frequent(least = 1)` keeps what was looked up at all: of a language model, the words that its
    calibration text has, and a warning says how many words are the same to the model from then on.

    Args:
        keep: the share of rows that are left, that of all others included.
        least: or so many lookups a row that stays has, at least.
        seen: a file of interactions, see docs/tables.md; calibration data if it is left out.
        within: a row that stays was looked up at most so long before the last of all interactions, in units of the
            file's times.
        inner: how the rows that are left are stored; as they are by default.
        residual: how what is left of each row is stored beside; it is not, by default.
        tied: see `kmeans`.

    Source: Monolith, Liu et al. 2022 (arXiv:2209.07663), section 2.1, for thresholds and expiry.
    """

    keyword: ClassVar[str] = "frequent"

    keep: Share | None = None
    least: Annotated[int, Limits(1, MOST)] | None = None
    seen: str = CALIBRATION
    within: Annotated[float, Limits(0, MOST)] | None = None
    inner: Encoding = FLOAT32
    residual: Encoding | None = None
    tied: Tied = "refuse"

    @property
    def merging(self) -> Merging:
        """By its arguments."""
        return OftenAsked(self.keep or 0.0, self.least or 0, self.seen, self.within)
