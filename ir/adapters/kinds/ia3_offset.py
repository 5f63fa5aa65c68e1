"""Scales around one, of what a layer multiplies by."""

from typing import ClassVar

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, spelled
from qcc.ir.errors import Refused


class Ia3Offset(Delta):
    """(IA)3 as kohya's scripts and LyCORIS write it: rows or columns of a weight times one plus a vector.

    ``on_input`` tells columns from rows. A bias stays as it is, as where they merge it.

    Source: Few-shot parameter-efficient fine-tuning, Liu et al. 2022 (arXiv:2205.05638), and LyCORIS, which writes it.
    """

    label = "(IA)3"
    endings: ClassVar = {"offset": ("weight",), "on_input": ("on_input",)}
    needed = (frozenset({"offset", "on_input"}),)

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        offset, matrix = parts["offset"], base.matrix
        assert base.weight is not None
        rows, inputs = len(matrix), base.weight.shape[1]
        by_column = bool(parts["on_input"].any())
        if offset.size != (inputs if by_column else rows):
            of = "reads" if by_column else "makes"
            raise Refused(f"its scale of what the layer {of} is {spelled(offset)}, the weight {spelled(base.weight)}")
        scale = 1 + offset.reshape(-1)
        if by_column:
            return base.with_matrix(matrix.reshape(rows, inputs, -1) * scale[None, :, None])
        return base.with_matrix(matrix * scale[:, None])
