"""Rounding up or down at random."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.encoded import Encoded, stored
from qcc.ir.encoding.fit import fit
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Weight
from qcc.passes.contract.contract import Between, Context, Rounding


@dataclass(frozen=True)
class Stochastic(Rounding):
    """Round every weight up or down at random, in proportion to how near it is, so that errors average out to zero.

    Needs no data. The same seed gives the same codes.

    Args:
        seed: of the draw.

    Source: Deep learning with limited numerical precision, Gupta et al. 2015 (arXiv:1502.02551), section 3.
    """

    uses_gram: ClassVar[bool] = False

    seed: Annotated[int, Between(0, 2**32 - 1)] = 0

    def encode(self, weight: Weight, matrix: np.ndarray, encoding: Encoding, context: Context) -> Encoded:
        """Round up or down."""
        if not isinstance(encoding, Blocked) or not isinstance(encoding.grid, IntGrid):
            raise Refused("rounding up or down at random takes integers")
        scales = fit(matrix, encoding, "absmax")
        step, zeros = scales.rows()
        inverse = np.divide(1, step, out=np.zeros_like(step), where=step != 0)
        blocks = encoding.block.split(matrix) * inverse
        draw = np.random.default_rng(self.seed).random(blocks.shape, np.float32)
        codes = encoding.grid.codes(np.floor(blocks + draw), zeros)
        shape = matrix.shape[0], matrix.shape[1]
        return Encoded(encoding, shape, stored(encoding, encoding.block.join(codes, shape), scales))
