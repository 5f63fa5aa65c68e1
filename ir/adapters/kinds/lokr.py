"""A Kronecker product beside a weight."""

from itertools import product as pairs
from typing import ClassVar

import numpy as np

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, fits, product, tucker
from qcc.ir.graph.ops import Array


class Lokr(Delta):
    """LoKr: ``W + s (W1 x W2)``, each factor whole or a narrow product, of the second maybe with a core.

    ``s`` is ``alpha / rank``; one where both are whole and no settings of peft stand beside the file.

    Source: Navigating text-to-image customization, Yeh et al. 2023 (arXiv:2309.14859), and LyCORIS, which writes it.
    """

    label = "LoKr"
    endings: ClassVar = {
        **{f"{which}{part}": (f"lokr_w{which}{part}",) for which, part in pairs("12", ("", "_a", "_b"))},
        "core": ("lokr_t2",),
    }
    needed = tuple(frozenset((*one, *two)) for one, two in pairs((("1",), ("1_a", "1_b")), (("2",), ("2_a", "2_b"))))

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        core, ranks = parts.get("core"), list[int]()
        first = _factor(parts, "1", ranks)
        if core is None:
            second = _factor(parts, "2", ranks)
        else:
            second = tucker(core, parts["2_a"], parts["2_b"], "LoKr")
            ranks.append(len(parts["2_a"]))
        rank = parts.settings.get("r") if isinstance(parts.settings.get("r"), int) else None
        scale = parts.scaling(int(str(rank)) if rank else ranks[-1]) if rank or ranks else 1.0
        delta = np.kron(first.reshape(len(first), -1), second.reshape(len(second), -1))
        matrix = base.matrix
        return base.with_matrix(matrix + scale * fits(delta, base, "the Kronecker product").reshape(matrix.shape))


def _factor(parts: DeltaParts, which: str, ranks: list[int]) -> Array:
    whole = parts.get(which)
    if whole is not None:
        return whole
    ranks.append(len(parts[f"{which}_b"]))
    return product(parts[f"{which}_a"], parts[f"{which}_b"], "LoKr")
