"""Scales of what a layer makes, or reads."""

from typing import ClassVar

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, spelled
from qcc.ir.errors import Refused


class Ia3(Delta):
    """(IA)3: what a layer makes is multiplied by a vector ``[out, 1]``, or what it reads by one ``[1, in]``.

    Source: Few-shot parameter-efficient fine-tuning, Liu et al. 2022 (arXiv:2205.05638), as peft writes it.
    """

    label = "(IA)3"
    endings: ClassVar = {"scale": ("ia3_l",)}
    needed = (frozenset({"scale"}),)

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        scale, matrix = parts["scale"], base.matrix
        assert base.weight is not None
        rows, inputs = len(matrix), base.weight.shape[1]
        by_row = scale.size == rows and (scale.ndim < 2 or len(scale) == rows)
        by_column = scale.size == inputs and scale.ndim >= 2 and len(scale) == 1
        if by_row and by_column:
            raise Refused("its scale may be of what the layer makes or reads")
        if not by_row and not by_column:
            raise Refused(f"its scale is {spelled(scale)}, the weight {spelled(base.weight)}")
        if by_row:
            bias = None if base.bias is None else base.bias * scale.reshape(-1)
            return base.with_matrix(matrix * scale.reshape(-1, 1), bias)
        whole = matrix.reshape(rows, inputs, -1) * scale.reshape(1, -1, 1)
        return base.with_matrix(whole)
