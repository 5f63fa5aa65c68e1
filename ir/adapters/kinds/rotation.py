"""Rotations of what a layer makes."""

from typing import ClassVar

import numpy as np

from qcc.ir.adapters.delta import Affine, Delta, DeltaParts, spelled, vector
from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Array


class Rotation(Delta):
    """OFT and BOFT: a weight's rows, block by block, turned by ``(I + Q) (I - Q)^-1`` with ``Q = B - B'``.

    ``oft_blocks`` of three axes are one block diagonal matrix, of four as many in turn, between which rows change
    places like those of a butterfly. The file's ``alpha`` times the count of rows bounds the size of all ``Q``
    together. ``rescale`` scales the rows at last. A bias stays as it is.

    Sources: Controlling text-to-image diffusion by orthogonal finetuning, Qiu et al. 2023 (arXiv:2306.07280);
        Parameter-efficient orthogonal finetuning via butterfly factorization, Liu et al. 2024 (arXiv:2311.06243); as
        kohya's scripts and LyCORIS write them.
    """

    label = "OFT"
    endings: ClassVar = {"blocks": ("oft_blocks",), "rescale": ("rescale",)}
    needed = (frozenset({"blocks"}),)

    def apply(self, parts: DeltaParts, base: Affine) -> Affine:  # noqa: D102
        blocks, matrix = parts["blocks"], base.matrix
        is_butterfly = blocks.ndim == 4
        stages = blocks if is_butterfly else blocks[None]
        if stages.ndim != 4 or stages.shape[2] != stages.shape[3] or stages.shape[1] * stages.shape[2] != len(matrix):
            raise Refused(f"its blocks are {spelled(blocks)}, the weight {spelled(matrix)}")
        width = stages.shape[2]
        if is_butterfly and (width % 2 or len(matrix) % (width << (len(stages) - 1))):
            raise Refused(f"its blocks are {spelled(blocks)}, and no butterfly of {len(matrix):,} rows")
        turns = _cayley(_bounded(stages - stages.swapaxes(-1, -2), parts.alpha, len(matrix)))
        for at, turn in enumerate(turns):
            stride = (1 << at) * (width // 2) if is_butterfly else 1
            matrix = _mixed(matrix, turn, stride) if is_butterfly else _turned(matrix, turn.swapaxes(-1, -2))
        scale = parts.get("rescale")
        if scale is not None:
            matrix = matrix * vector(scale, len(matrix), "what it scales rows by")[:, None]
        return base.with_matrix(matrix)


def _bounded(skew: Array, alpha: float | None, rows: int) -> Array:
    size, most = float(np.linalg.norm(skew)), (alpha or 0.0) * rows
    return skew * (most / size) if 0 < most < size else skew


def _cayley(skew: Array) -> Array:
    one = np.eye(skew.shape[-1])
    found: Array = (one + skew) @ np.linalg.inv(one - skew)
    return found


def _turned(matrix: Array, turns: Array) -> Array:
    """Each block of rows times a matrix, from the left."""
    found: Array = turns @ matrix.reshape(len(turns), turns.shape[1], -1)
    return found.reshape(matrix.shape)


def _mixed(matrix: Array, turns: Array, stride: int) -> Array:
    """Rows that lie a stride apart side by side, turned, and back where they were."""
    apart = matrix.reshape(-1, 2, stride, matrix.shape[1]).swapaxes(1, 2)
    turned = _turned(apart.reshape(matrix.shape), turns).reshape(-1, stride, 2, matrix.shape[1])
    return np.asarray(turned.swapaxes(1, 2).reshape(matrix.shape))
