"""Running models whose caches hold codes as those that they came from are run: with floats."""

from collections.abc import Sequence
from dataclasses import dataclass

from qcc.ir.encoding.cached.stored import StoredCache, coded, decoded
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array, Feeds


@dataclass(frozen=True)
class InFloats:
    """A runner that is fed floats and returns floats.

    Args:
        coded: runs the model as it is.
        caches: that hold codes.
    """

    coded: Runner
    caches: Sequence[StoredCache]

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Run once."""
        return decoded(self.caches, self.coded(coded(self.caches, feeds)))
