"""Differences of a few numbers of a weight."""

from typing import ClassVar

import numpy as np

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, spelled
from qcc.ir.errors import Refused


class SparseDelta(Delta):
    """Sparse fine-tuning: values that are added at some places, counted row by row, or by row and column.

    Source: SpFT, Yang et al. 2024, and sparse fine-tuning as Ansell et al. 2021 (arXiv:2110.07560) store it.
    """

    label = "sparse"
    endings: ClassVar = {
        "places": ("sft_delta.indices", "sparse.indices", "weight.indices", "indices"),
        "values": ("sft_delta.values", "sparse.values", "weight.values", "values"),
    }
    needed = (frozenset({"places", "values"}),)

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        matrix = base.matrix if base.weight is None or base.weight.ndim > 1 else base.weight.reshape(1, -1)
        places, values = parts["places"], parts["values"].reshape(-1)
        if places.ndim == 2 and len(places) == 2:
            rows, columns = places
            outside = bool(np.any((rows < 0) | (rows >= len(matrix)) | (columns < 0) | (columns >= matrix.shape[1])))
            flat = rows * matrix.shape[1] + columns
        else:
            flat = places.reshape(-1)
            outside = bool(np.any((flat < 0) | (flat >= matrix.size)))
        if len(flat) != len(values):
            raise Refused(f"it has {spelled(places)} places and {spelled(values)} values")
        if outside:
            raise Refused(f"some of its places lie outside of the weight, which is {spelled(matrix)}")
        found = matrix.reshape(-1).copy()
        np.add.at(found, flat.astype(np.int64), values)
        return base.with_matrix(found)
