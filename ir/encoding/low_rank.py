"""Products: a matrix as the product of two narrow ones."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcc.ir.encoding.algebra import Encoding, Leaf, MatrixShape, Ops, Part, Read, V, inside, under


@dataclass(frozen=True)
class LowRank(Encoding):
    """``W [out, in] ~ A [out, rank] @ B [rank, in]``, each stored by an encoding of its own.

    The factors are the leading singular vectors, each scaled by the root of its singular value.
    """

    rank: int
    factors: Encoding

    @property
    def text(self) -> str:
        """The rank and how factors are stored."""
        return f"low_rank({self.rank}, {self.factors.text})"

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Those of the two factors."""
        rank = self._rank(shape)
        left, right = self.factors.parts((shape[0], rank)), self.factors.parts((rank, shape[1]))
        return {**inside(left, "left"), **inside(right, "right")}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """The product."""
        rank = self._rank(shape)
        left = ops.decode(self.factors, under(read, "left"), (shape[0], rank))
        return ops.multiply(left, ops.decode(self.factors, under(read, "right"), (rank, shape[1])))

    def encode(self, matrix: np.ndarray, leaf: Leaf) -> dict[str, np.ndarray]:
        """By the singular values."""
        rank = self._rank((matrix.shape[0], matrix.shape[1]))
        left, sizes, right = np.linalg.svd(matrix.astype(np.float32), full_matrices=False)
        roots = np.sqrt(sizes[:rank])
        kept = np.ascontiguousarray(left[:, :rank] * roots), np.ascontiguousarray(roots[:, None] * right[:rank])
        stored = [self.factors.encode(factor, leaf) for factor in kept]
        return {**inside(stored[0], "left"), **inside(stored[1], "right")}

    def _rank(self, shape: MatrixShape) -> int:
        return min(self.rank, *shape)
