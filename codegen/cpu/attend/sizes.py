"""How attention over rows that are all given is cut for a processor's registers."""

from dataclasses import dataclass
from typing import Literal

from qcc.ir.kernel.dense_op import DenseOp

Bias = Literal["none", "keys", "scores"]
LANES = 16  # queries of a vector
BLOCK = 128  # keys whose scores are held


@dataclass(frozen=True)
class DenseSizes:
    """What a function is made for.

    Args:
        op: that it is part of.
        vectors: of sixteen queries.
        together: keys, and then queries, that are worked on together.
        beside: vectors of channels of values that each of these queries meets.
        bias: nothing is added to scores, a number a key, or one a score.
    """

    op: DenseOp
    vectors: int
    together: int
    beside: int
    bias: Bias

    @property
    def width(self) -> int:
        """Queries."""
        return self.vectors * LANES

    @property
    def room(self) -> int:
        """Numbers that a call needs: queries by channels, scores by keys, and two more a query."""
        return (self.op.channels + BLOCK + 2) * self.width

    @property
    def apart(self) -> int:
        """Numbers between rows of queries, and of the result."""
        return self.op.heads * self.op.channels

    @property
    def keys_apart(self) -> int:
        """The same of keys and values."""
        return self.op.kept_heads * self.op.channels

    @property
    def name(self) -> str:
        """Of the function."""
        of = f"{self.op.heads}x{self.op.kept_heads}x{self.op.channels}{'_causal' * self.op.causal}"
        return f"attend_{self.width}by{self.together}_{self.bias}_of{of}"


@dataclass(frozen=True)
class FewSizes:
    """What the function of one query is made for.

    Args:
        op: that it is part of.
        sums: vectors of results that are added up at once.
    """

    op: DenseOp
    sums: int

    @property
    def vectors(self) -> int:
        """Of channels."""
        return self.op.channels // LANES

    @property
    def beside(self) -> int:
        """Vectors of channels that are worked on together."""
        return min(self.vectors, self.sums)

    @property
    def together(self) -> int:
        """Keys that are."""
        return max(self.sums // self.beside, 1)

    @property
    def apart(self) -> int:
        """Numbers between rows of keys and values."""
        return self.op.kept_heads * self.op.channels

    @property
    def name(self) -> str:
        """Of the function."""
        return f"attend_1by{self.sums}{'_masked' * self.op.masked}_of{self.op.kept_heads}x{self.op.channels}"


def sizes_of(op: DenseOp, wide: bool) -> tuple[DenseSizes | None, ...]:
    """The functions of an op: for many queries and for few, with a bias a key or none, then the same for one a score.

    ``wide`` registers are those of AVX-512.
    """
    cuts = ((2, 8, 2), (1, 8, 2)) if wide else ((1, 4, 1), None)
    kinds: tuple[Bias | None, ...] = ("keys", "scores") if op.masked else ("none", None)
    return tuple(None if cut is None or kind is None else DenseSizes(op, *cut, kind) for kind in kinds for cut in cuts)


def few_of(op: DenseOp, wide: bool) -> FewSizes:
    """The function for one query."""
    return FewSizes(op, 8 if wide else 4)
