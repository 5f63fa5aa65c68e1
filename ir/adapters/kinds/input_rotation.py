"""Rotations of what a layer reads."""

from typing import ClassVar

import numpy as np

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, spelled
from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Array


class InputRotation(Delta):
    """OFT as peft writes it: ``W R'`` with ``R = (I - Q) (I + Q)^-1``, block diagonal, or the start of its series.

    A row of the tensor has the numbers of one block of ``Q`` above the diagonal. Which of both ``R`` is, whether all
    blocks are one, and how far ``Q`` may go, is said by the settings beside the file alone.

    Source: Controlling text-to-image diffusion by orthogonal finetuning, Qiu et al. 2023 (arXiv:2306.07280).
    """

    label = "OFT"
    endings: ClassVar = {"turns": ("oft_R.weight",)}
    needed = (frozenset({"turns"}),)

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        turns, matrix, settings = parts["turns"], base.matrix, parts.settings
        if base.is_table:
            raise Refused("rotations of tables are not read")
        if not isinstance(settings.get("use_cayley_neumann"), bool):
            raise Refused("`adapter_config.json` beside the file has to say how it turns: `use_cayley_neumann`")
        width = (1 + np.sqrt(1 + 8 * turns.shape[-1])) / 2
        size = round(float(width))
        blocks = matrix.shape[1] // size if parts.flag("block_share") else len(turns)
        if turns.ndim != 2 or size * (size - 1) != 2 * turns.shape[1] or blocks * size != matrix.shape[1]:
            raise Refused(f"its rotations are {spelled(turns)}, the weight {spelled(matrix)}")
        skew = _skew(turns, size)
        if parts.flag("coft"):
            skew = _projected(skew, settings.get("eps"))
        terms = settings.get("num_cayley_neumann_terms", 5)
        series = parts.flag("use_cayley_neumann")
        turn = _series(skew, terms if isinstance(terms, int) else 5) if series else _cayley(skew)
        whole = matrix.reshape(len(matrix), blocks, size).swapaxes(0, 1)
        turned = whole @ np.broadcast_to(turn, (blocks, size, size)).swapaxes(-1, -2)
        return base.with_matrix(turned.swapaxes(0, 1).reshape(matrix.shape))


def _skew(numbers: Array, size: int) -> Array:
    found = np.zeros((len(numbers), size, size))
    rows, columns = np.triu_indices(size, 1)
    found[:, rows, columns] = numbers
    return np.asarray(found - found.swapaxes(-1, -2))


def _projected(skew: Array, eps: object) -> Array:
    """No block larger than ``eps`` over the root of their count."""
    most = (float(eps) if isinstance(eps, float | int) else 6e-5) / np.sqrt(len(skew))
    sizes = np.linalg.norm(skew, axis=(1, 2), keepdims=True)
    return np.asarray(skew * np.minimum(1, most / np.maximum(sizes, np.finfo(np.float64).tiny)))


def _cayley(skew: Array) -> Array:
    one = np.eye(skew.shape[-1])
    return np.asarray((one - skew) @ np.linalg.inv(one + skew))


def _series(skew: Array, terms: int) -> Array:
    """``I + 2 Q + 2 Q^2 + ... + Q^n``, as far as so many terms take peft: of three and more the last counts once."""
    found, power = np.broadcast_to(np.eye(skew.shape[-1]), skew.shape).copy(), skew
    top = max(terms - 1, 3) if terms > 2 else terms - 1
    for at in range(1, top + 1):
        found += (1 if at == top and terms > 2 else 2) * power
        power = power @ skew
    return found
