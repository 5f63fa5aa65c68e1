"""The product, number by number, of two narrow products beside a weight."""

from typing import ClassVar

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, fits, product, spelled, tucker
from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Array


class Loha(Delta):
    """LoHa: ``W + s (A1 B1) * (A2 B2)`` with ``s = alpha / rank``, each product maybe with a core.

    Source: FedPara, Hyeon-Woo et al. 2021 (arXiv:2108.06098), and LyCORIS, which writes it.
    """

    label = "LoHa"
    endings: ClassVar = {
        **{f"{which}_{part}": (f"hada_w{which}_{part}",) for which in "12" for part in "ab"},
        "1_core": ("hada_t1",),
        "2_core": ("hada_t2",),
    }
    needed = (frozenset({"1_a", "1_b", "2_a", "2_b"}),)

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        first, second = _product(parts, "1"), _product(parts, "2")
        if first.shape != second.shape:
            raise Refused(f"the products of LoHa are {spelled(first)} and {spelled(second)}")
        delta, matrix = fits(first * second, base, "LoHa's product"), base.matrix
        return base.with_matrix(matrix + parts.scaling(len(parts["1_b"])) * delta.reshape(matrix.shape))


def _product(parts: DeltaParts, which: str) -> Array:
    core, left, right = parts.get(f"{which}_core"), parts[f"{which}_a"], parts[f"{which}_b"]
    return product(left, right, "LoHa") if core is None else tucker(core, left, right, "LoHa")
