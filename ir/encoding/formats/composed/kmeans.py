"""Tables whose rows are the nearest of fewer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32
from qcc.ir.encoding.format import Limits, Share, check_share, least_share, percent, quoted
from qcc.ir.encoding.formats.composed.merged import MergedRows, Merging, Tied
from qcc.ir.encoding.tables.clusters import kmeans
from qcc.ir.encoding.tables.graph import features
from qcc.ir.encoding.tables.lookups import WHERE_GIVEN, Lookups, interactions_of, lookups_of, trained_rows


@dataclass(frozen=True)
class Nearby(Merging):
    """Rows near each other become one: in their numbers, or in what they are looked up with.

    Args:
        keep: the share of rows that are left.
        graph: the interactions that tell what rows are looked up with; rows are compared by their numbers if empty.
        trained: the time up to which rows have been trained; without it all have.
        seen: the interactions that tell which rows are looked up most, which share with no other; calibration data
            where it is empty, and is given.
    """

    keep: float
    graph: str = ""
    trained: float | None = None
    seen: str = ""

    def __post_init__(self) -> None:
        check_share(self.keep)
        if self.graph and self.seen:
            raise ValueError("rows are compared by their numbers, with `seen`, or by a `graph`")
        if self.trained is not None and not self.graph:
            raise ValueError("`trained` needs a `graph` that says when rows were looked up")

    @property
    def text(self) -> str:
        """By its arguments."""
        graph = f", graph = {quoted(self.graph)}" if self.graph else ""
        trained = "" if self.trained is None else f", trained = {self.trained:.17g}"
        seen = f", seen = {quoted(self.seen)}" if self.seen else ""
        return f"kmeans(keep = {percent(self.keep)}{graph}{trained}{seen}"

    def count(self, rows: int) -> int:
        """The share of so many."""
        return max(round(self.keep * rows), 1)

    @property
    def least_left(self) -> float:
        """As asked, rounded."""
        return least_share(self.keep)

    @property
    def sources(self) -> frozenset[str]:
        """The interactions, if there are some, or else calibration data, if that is given."""
        return frozenset((self.graph or self.seen or WHERE_GIVEN,))

    def check_lookups(self, lookups: Mapping[str, Lookups]) -> None:
        """See that times are told where they are needed."""
        if self.trained is not None:
            trained_rows(lookups, self.graph, self.trained)

    def labels(self, matrix: np.ndarray, lookups: Mapping[str, Lookups]) -> np.ndarray:
        """By the nearest of as many centres."""
        count = self.count(len(matrix))
        if self.graph:
            found = interactions_of(lookups, self.graph)
            return kmeans(features(found), count, found.counts)
        known = lookups_of(lookups, self.seen) if self.seen else lookups.get(WHERE_GIVEN)
        counts = np.zeros(len(matrix), np.int64) if known is None else known.counts
        alone = np.sort(np.argsort(-counts, kind="stable")[: min(count // 2, int((counts > 0).sum()))])
        labels = np.empty(len(matrix), np.int64)
        labels[alone] = np.arange(len(alone))
        others = np.setdiff1d(np.arange(len(matrix)), alone)
        labels[others] = len(alone) + kmeans(matrix[others], count - len(alone))
        return labels

    def weights(self, rows: int, lookups: Mapping[str, Lookups]) -> np.ndarray:
        """Rows that have not been trained count nothing beside others."""
        return trained_rows(lookups, self.graph, self.trained) if self.graph else np.ones(rows)


@dataclass(frozen=True)
class NearbyRows(MergedRows):
    """A table of fewer rows, each the mean of some that are near each other, and a small number for each id.

    Rows are near by their numbers. Those that calibration data looks up most stay as they are, at most half of the
    rows that are left, and all others share the rest; a file of interactions may say which rows are ``seen`` instead,
    and without either no row is before others. With a ``graph`` of
    interactions rows are near by what they are looked up with, which tells something of rows that were never trained
    too; of the rows that become one those count that have been trained.

    Args:
        keep: the share of rows that are left.
        graph: a file of interactions, see docs/tables.md: rows are compared by what it pairs them with.
        trained: the time, in the file's units, up to which the model was trained: a row that the file pairs with
            nothing up to then counts nothing beside rows that it does.
        seen: a file of interactions: the rows that it looks up most share with no other, in place of those that
            calibration data does.
        inner: how the rows that are left are stored; as they are by default.
        residual: how what is left of each row is stored beside; it is not, by default.
        tied: of a table that a linear layer multiplies with as well: it is refused, or `expand` gives that layer all
            rows, as many of them equal.

    Source: FastRP, Chen et al. 2019 (arXiv:1908.11512), for the numbers of a graph's nodes.
    """

    keyword: ClassVar[str] = "kmeans"

    keep: Share
    graph: str = ""
    trained: Annotated[float, Limits(-1e15, 1e15)] | None = None
    seen: str = ""
    inner: Encoding = FLOAT32
    residual: Encoding | None = None
    tied: Tied = "refuse"

    @property
    def merging(self) -> Merging:
        """By its arguments."""
        return Nearby(self.keep, self.graph, self.trained, self.seen)
