"""Nothing: no bits, and all weights are zero."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Columns, Encoding, Fitted, Fitter, MatrixShape, Ops, Part, Read, Rows, V


@dataclass(frozen=True)
class Nothing(Encoding):
    """Zeros, of which nothing is stored: inputs that are left out, beside others that are not."""

    @property
    def text(self) -> str:
        """Integers of no bits."""
        return "int0"

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """None."""
        return {}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """Zeros."""
        return ops.zeros(shape)

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """Zeros, where there are rows at all."""
        raise NotImplementedError("how many rows of nothing there are, nothing tells")

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """Whatever the matrix."""
        return FittedNothing()

    def turned(self) -> Encoding:
        """The same."""
        return self


class FittedNothing(Fitted):
    """Zeros."""

    fixed: ClassVar[bool] = True

    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """Zero."""
        return np.zeros_like(values)

    def parts(self) -> dict[str, np.ndarray]:
        """None."""
        return {}
