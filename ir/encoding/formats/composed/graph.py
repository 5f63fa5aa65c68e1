"""Tables whose rows are those of communities in a graph of what is looked up together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32
from qcc.ir.encoding.format import Limits, quoted
from qcc.ir.encoding.formats.composed.merged import MergedRows, Merging, Tied
from qcc.ir.encoding.tables.graph import check_size, communities
from qcc.ir.encoding.tables.lookups import Lookups, interactions_of, trained_rows


@dataclass(frozen=True)
class Together(Merging):
    """Rows of a community become one.

    Args:
        interactions: the file that tells what is looked up together.
        resolution: the larger, the smaller communities are.
        trained: see `Nearby`.
    """

    interactions: str
    resolution: float = 1.0
    trained: float | None = None

    def __post_init__(self) -> None:
        if not self.interactions:
            raise ValueError('`graph` takes a file of interactions, as in `graph("interactions.npz")`')

    @property
    def text(self) -> str:
        """By its arguments."""
        trained = "" if self.trained is None else f", trained = {self.trained:.17g}"
        return f"graph(interactions = {quoted(self.interactions)}, resolution = {self.resolution:.17g}{trained}"

    def count(self, rows: int) -> int:
        """About a third."""
        return max(rows // 3, 1)

    @property
    def open(self) -> bool:
        """The graph says it."""
        return True

    @property
    def least_left(self) -> float:
        """Nothing tells."""
        return 0.0

    @property
    def sources(self) -> frozenset[str]:
        """The interactions."""
        return frozenset((self.interactions,))

    def check_lookups(self, lookups: Mapping[str, Lookups]) -> None:
        """See that the graph is none too large, and that times are told where they are needed."""
        found = lookups[self.interactions].of
        if found is not None:
            check_size(found)
        trained_rows(lookups, self.interactions, self.trained)

    def labels(self, matrix: np.ndarray, lookups: Mapping[str, Lookups]) -> np.ndarray:
        """By community."""
        return communities(interactions_of(lookups, self.interactions), self.resolution)

    def weights(self, rows: int, lookups: Mapping[str, Lookups]) -> np.ndarray:
        """Rows that have not been trained count nothing beside others."""
        return trained_rows(lookups, self.interactions, self.trained)


@dataclass(frozen=True)
class RowsTogether(MergedRows):
    """A table of fewer rows, each the mean of those that are looked up with the same rows of another table.

    Rows are nodes of a graph whose edges are interactions; its communities are found by Louvain's method. Made for
    tables that are trained so: of one that was trained before, `kmeans` of the rows themselves keeps more.
    With more than 100,000 pairs it takes the package scikit-network (`pip install "qcc[graphs]"`).

    Args:
        interactions: a file of interactions, see docs/tables.md.
        resolution: the larger, the smaller communities are, and the more rows are left.
        trained: see `kmeans`.
        inner: how the rows that are left are stored; as they are by default.
        residual: how what is left of each row is stored beside; it is not, by default.
        tied: see `kmeans`.

    Source: GraphHash, Wu et al. 2024 (arXiv:2412.17245), section 4.1, where it is done before training.
    """

    keyword: ClassVar[str] = "graph"

    interactions: str
    resolution: Annotated[float, Limits(0.01, 1000)] = 1.0
    trained: Annotated[float, Limits(-1e15, 1e15)] | None = None
    inner: Encoding = FLOAT32
    residual: Encoding | None = None
    tied: Tied = "refuse"

    @property
    def merging(self) -> Merging:
        """By its arguments."""
        return Together(self.interactions, self.resolution, self.trained)
