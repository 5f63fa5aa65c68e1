"""Bands: the inputs of a layer in groups, each stored by an encoding of its own."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcc.ir.encoding.algebra import Encoding, Leaf, MatrixShape, Ops, Part, Read, V, inside, under
from qcc.ir.encoding.packing import UNIT


@dataclass(frozen=True)
class Bands(Encoding):
    """Some inputs finer than the rest: a share of the columns in one encoding, the others in a second.

    Which ones is stored, a number an input. The share is rounded to whole units of codes.

    Source: PTQ1.61, Zhao et al. 2025 (arXiv:2502.13179), section 3.2, has such masks.
    """

    fine: Encoding
    coarse: Encoding
    share: float

    @property
    def text(self) -> str:
        """Both encodings and the share of the first."""
        return f"bands({self.fine.text}, {self.coarse.text}, share = {self.share:.6g})"

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Those of both bands, and the place of each column among them."""
        count = self._count(shape)
        fine, coarse = self.fine.parts((shape[0], count)), self.coarse.parts((shape[0], shape[1] - count))
        place = Part((shape[1],), 16 if shape[1] <= 1 << 16 else 32, np.uint16 if shape[1] <= 1 << 16 else np.int32)
        return {**inside(fine, "fine"), **inside(coarse, "coarse"), "place": place}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """The bands side by side, and the columns put back."""
        count = self._count(shape)
        fine = ops.decode(self.fine, under(read, "fine"), (shape[0], count))
        coarse = ops.decode(self.coarse, under(read, "coarse"), (shape[0], shape[1] - count))
        return ops.take(ops.concat((fine, coarse), 1), read("place"), 1)

    def encode(self, matrix: np.ndarray, leaf: Leaf) -> dict[str, np.ndarray]:
        """The columns of the largest norms are the fine ones."""
        shape = matrix.shape[0], matrix.shape[1]
        count = self._count(shape)
        by_size = np.argsort(-np.linalg.norm(matrix, axis=0), kind="stable")
        order = np.concatenate([np.sort(by_size[:count]), np.sort(by_size[count:])])
        fine = self.fine.encode(np.ascontiguousarray(matrix[:, order[:count]]), leaf)
        coarse = self.coarse.encode(np.ascontiguousarray(matrix[:, order[count:]]), leaf)
        place = np.argsort(order).astype(self.parts(shape)["place"].dtype)
        return {**inside(fine, "fine"), **inside(coarse, "coarse"), "place": place}

    def _count(self, shape: MatrixShape) -> int:
        """Columns of the fine band: some, and not all."""
        units = max(round(self.share * shape[1] / UNIT), 1) * UNIT
        return min(units, shape[1] - 1) if shape[1] > 1 else shape[1]
