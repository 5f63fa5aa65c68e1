"""A narrow product beside a weight."""

from typing import ClassVar

import numpy as np

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, fits, product, spelled, tucker, vector
from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Array


class Lora(Delta):
    """LoRA: ``W + s B A`` with ``s = alpha / rank``; with a magnitude DoRA: its rows have that norm.

    Sources: LoRA, Hu et al. 2021 (arXiv:2106.09685); DoRA, Liu et al. 2024 (arXiv:2402.09353). Names and layouts as
    peft, kohya's scripts and diffusers write them; a convolution's down factor has its kernel, or a core between.
    """

    label = "LoRA"
    endings: ClassVar = {
        "down": ("lora_A.weight", "lora_A", "lora_embedding_A", "lora_down.weight", "lora.down.weight"),
        "up": ("lora_B.weight", "lora_B", "lora_embedding_B", "lora_up.weight", "lora.up.weight"),
        "core": ("lora_mid.weight",),
        "magnitude": ("lora_magnitude_vector.weight", "lora_magnitude_vector", "dora_scale"),
        "shift": ("lora_B.bias",),
    }
    needed = (frozenset({"down", "up"}),)

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        down, up, core = parts["down"], parts["up"], parts.get("core")
        scale = parts.scaling(len(down))
        delta = product(up, down, "LoRA") if core is None else _with_core(core, up, down)
        if base.is_table and base.weight is not None and delta.shape == base.weight.shape[::-1]:
            delta = delta.T
        weight = base.matrix + scale * fits(delta, base, "the product of its factors").reshape(base.matrix.shape)
        magnitude, shift = parts.get("magnitude"), parts.get("shift")
        if magnitude is not None:
            weight = _sized(weight, magnitude, base)
        if shift is None:
            return base.with_matrix(weight)
        added = scale * vector(shift, len(weight), "the vector that LoRA adds")
        return base.with_matrix(weight, added if base.bias is None else base.bias + added)


def _with_core(core: Array, up: Array, down: Array) -> Array:
    rank = len(down)
    if core.shape[:2] != (rank, rank):
        raise Refused(f"the core of LoRA is {spelled(core)}, its rank {rank}")
    return tucker(core, up.reshape(len(up), -1).T, down.reshape(rank, -1), "LoRA")


def _sized(matrix: Array, magnitude: Array, base: Affine) -> Array:
    """Rows, or columns where the magnitudes are those of inputs, of given norms."""
    assert base.weight is not None
    inputs = magnitude.ndim >= 2 and len(magnitude) == 1 and magnitude.shape[1] != 1
    if not inputs:
        size = vector(magnitude, len(matrix), "DoRA's magnitude")
        rows = np.maximum(np.linalg.norm(matrix, axis=1), np.finfo(np.float64).tiny)
        found: Array = matrix * (size / rows)[:, None]
        return found
    whole = matrix.reshape(len(matrix), base.weight.shape[1], -1)
    if magnitude.size != whole.shape[1]:
        raise Refused(f"DoRA's magnitude is {spelled(magnitude)}, the weight {spelled(base.weight)}")
    norm = np.maximum(np.linalg.norm(whole, axis=(0, 2)), np.finfo(np.float64).tiny)
    return np.asarray((whole * (magnitude.reshape(-1) / norm)[None, :, None]).reshape(matrix.shape))
