"""Weights and biases as they are after training, or their differences."""

from typing import ClassVar

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, fits, vector
from qcc.ir.graph.ops import Array


class Whole(Delta):
    """Whole weights, or differences of all their numbers: full fine-tuning of some layers, BitFit's biases, norms.

    ``weight`` and ``bias`` take the place of what is there; ``diff``, ``diff_b``, ``w_norm`` and ``b_norm`` are added.

    Source: BitFit, Zaken et al. 2021 (arXiv:2106.10199); what peft keeps of ``modules_to_save``, and LyCORIS.
    """

    label = "whole"
    endings: ClassVar = {
        "weight": ("weight",),
        "bias": ("bias",),
        "more_weight": ("weight.diff", "diff", "w_norm"),
        "more_bias": ("bias.diff", "diff_b", "b_norm"),
    }
    needed = tuple(frozenset({role}) for role in endings)

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        weight, bias = base.weight, base.bias
        turned = parts.flag("fan_in_fan_out") and not base.is_table

        def shaped(array: Array) -> Array:
            return fits(array.T if turned and array.ndim == 2 else array, base, "the whole weight")

        if (whole := parts.get("weight")) is not None:
            weight = shaped(whole)
        if (more := parts.get("more_weight")) is not None:
            weight = shaped(more) + (0 if weight is None else weight)
        rows = 0 if base.weight is None else len(base.weight)
        rows = rows or (0 if base.bias is None else len(base.bias))
        if (whole := parts.get("bias")) is not None:
            bias = vector(whole, rows, "the whole bias")
        if (more := parts.get("more_bias")) is not None:
            bias = vector(more, rows, "the bias's difference") + (0 if bias is None else bias)
        return Affine(weight, bias, base.is_table)
