"""Another diagonal between the triangular factors of a weight."""

from typing import ClassVar

import numpy as np
from scipy.linalg import lu

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, fits, product, spelled
from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Array


class Loldu(Delta):
    """LoLDU: of ``W = P L D U`` the first ranks of ``D`` become another diagonal, times a factor.

    ``W - s0 P L D U + s P L diag(z) U`` over the first ranks, with ``s0 = alpha / rank`` and ``s`` as it was learned.
    Factors that the file does not hold are those of the weight at hand; what was left of it may stand there, too.

    Source: LoLDU, Shi et al. 2024 (arXiv:2410.13618), section 3, with the names of its own code.
    """

    label = "LoLDU"
    endings: ClassVar = {
        "diagonal": ("vector_z", "weight.0.vector_z"),
        "factor": ("scaling_factor", "weight.0.scaling_factor"),
        "lower": ("loldu_lower", "weight.0.lora_B"),
        "upper": ("loldu_upper", "weight.0.lora_A"),
        "order": ("loldu_order", "weight.0.P"),
        "rest": ("weight.original",),
    }
    needed = (frozenset({"diagonal"}),)

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        matrix, diagonal = base.matrix, parts["diagonal"].reshape(-1)
        rank, factor, rest = len(diagonal), parts.get("factor"), parts.get("rest")
        if rank > min(matrix.shape):
            raise Refused(f"its diagonal is {spelled(diagonal)}, the weight {spelled(matrix)}")
        left, old, upper = _factors(matrix, rank)
        if (lower := parts.get("lower")) is not None:
            order = parts.get("order")
            left = lower if order is None else product(order, lower, "LoLDU")
        upper = upper if parts.get("upper") is None else parts["upper"]
        was = 1.0 if rest is not None and factor is not None else parts.scaling(rank)
        now = was if factor is None else float(factor.reshape(-1)[0])
        learned = now * fits(product(left * diagonal, upper, "LoLDU"), base, "LoLDU's product").reshape(matrix.shape)
        if rest is not None:
            return base.with_matrix(fits(rest, base, "what is left of the weight").reshape(matrix.shape) + learned)
        return base.with_matrix(matrix - was * product(left * old, upper, "LoLDU") + learned)


def _factors(matrix: Array, rank: int) -> tuple[Array, Array, Array]:
    """``P L``, the diagonal and ``U`` with ones on its own, of the first ranks."""
    lower, upper = lu(matrix, permute_l=True)
    diagonal = np.diagonal(upper)[:rank]
    if not np.all(diagonal):
        raise Refused("the weight has no such factors: one of its pivots is zero")
    return lower[:, :rank], diagonal, upper[:rank] / diagonal[:, None]
