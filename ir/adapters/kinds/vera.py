"""Vectors between factors that all layers share."""

from typing import ClassVar

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, fits, spelled, vector
from qcc.ir.errors import Refused


class Vera(Delta):
    """VeRA: ``W + diag(b) B diag(d) A`` with random ``A`` and ``B`` that all layers share, each as much as it needs.

    The file must hold both: what torch draws from a seed is not drawn again here.

    Source: VeRA, Kopiczko et al. 2023 (arXiv:2310.11454), as peft writes it.
    """

    label = "VeRA"
    endings: ClassVar = {
        "rows": ("vera_lambda_b",),
        "ranks": ("vera_lambda_d",),
        "down": ("vera_A",),
        "up": ("vera_B",),
    }
    needed = (frozenset({"rows", "ranks", "down", "up"}),)
    shared = frozenset({"down", "up"})

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        down, up, matrix = parts["down"], parts["up"], base.matrix
        rank = parts["ranks"].size
        if len(down) != rank or up.ndim != 2 or up.shape[1] != rank:
            raise Refused(f"the factors of VeRA are {spelled(up)} and {spelled(down)}, its rank {rank}")
        if len(up) < len(matrix) or down.shape[1] < matrix.shape[1]:
            shapes = f"{spelled(up)} and {spelled(down)}"
            raise Refused(f"the factors of VeRA are {shapes}, the weight {spelled(matrix)}")
        left = vector(parts["rows"], len(matrix), "VeRA's vector")[:, None] * up[: len(matrix)]
        delta = left @ (parts["ranks"].reshape(-1, 1) * down[:, : matrix.shape[1]])
        return base.with_matrix(matrix + fits(delta, base, "VeRA's product").reshape(matrix.shape))
