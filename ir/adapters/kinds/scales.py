"""Scales and added vectors behind a layer."""

from typing import ClassVar

import numpy as np

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, vector
from qcc.ir.errors import Refused


class ScaledOutputs(Delta):
    """DiffFit and SSF: what a layer or a norm makes is multiplied by a vector, or a number, and one is added.

    Sources: DiffFit, Xie et al. 2023 (arXiv:2304.06648); SSF, Lian et al. 2022 (arXiv:2210.08823).
    """

    label = "scales"
    endings: ClassVar = {"scale": ("ssf_scale", "scale", "gamma"), "shift": ("ssf_shift", "shift", "beta")}
    needed = (frozenset({"scale"}), frozenset({"shift"}))

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        if base.weight is None or base.is_table:
            raise Refused("it is no layer or norm whose channels are scaled")
        rows, scale, shift = len(base.weight), parts.get("scale"), parts.get("shift")
        weight, bias = base.weight, base.bias
        if scale is not None:
            sizes = np.full(rows, scale.reshape(-1)[0]) if scale.size == 1 else vector(scale, rows, "its scale")
            weight = weight * sizes.reshape(-1, *[1] * (weight.ndim - 1))
            bias = None if bias is None else bias * sizes
        if shift is not None:
            added = vector(shift, rows, "the vector that it adds")
            bias = added if bias is None else bias + added
        return Affine(weight, bias)
